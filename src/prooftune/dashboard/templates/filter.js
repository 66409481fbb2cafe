"use strict";
// Filters the runs as one types; without it the page shows them all.
(() => {
  const form = document.getElementById("filter"), runs = [...document.querySelectorAll("#runs tbody tr")];
  const [text, verdict, found] = ["text", "verdict", "found"].map((name) => document.getElementById(`filter-${name}`));
  const [latest, folded] = ["#runs > .scroll", "#runs details"].map((which) => [...document.querySelectorAll(which)]);
  const shows = (part) => part.querySelector("tbody tr:not([hidden])") !== null;
  form.hidden = false;
  const apply = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean), asked = words.length > 0 || verdict.value !== "";
    let count = 0;
    for (const run of runs) {
      const said = run.textContent.toLowerCase();
      run.hidden = !(words.every((word) => said.includes(word)) && (!verdict.value || run.dataset.verdict === verdict.value));
      count += run.hidden ? 0 : 1;
    }
    for (const part of [...latest, ...folded]) part.hidden = !shows(part);
    for (const part of folded) part.open = asked && shows(part);
    found.textContent = asked ? `${count.toLocaleString("en")} of ${runs.length.toLocaleString("en")} runs` : "";
  };
  text.addEventListener("input", apply);
  verdict.addEventListener("change", apply);
})();
