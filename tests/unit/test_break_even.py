"""When tuning pays: the worked example of the documentation, the laws, and the edges."""

from __future__ import annotations

from fractions import Fraction

import pytest
from click.testing import CliRunner
from hypothesis import assume, given
from hypothesis import strategies as st
from tests_support import ROOT

from flows.cli import main
from prooftune.economics.break_even import (
    cumulative_usd,
    months_until_paid,
    reach,
    requests_until_paid,
    saving_per_month,
    volume_for_hosting,
)
from prooftune.economics.costs import usd_per_wrong_answer
from prooftune.spec import parse_spec

usd = st.floats(0.01, 10_000)
cents = st.floats(0.0001, 10)
volumes = st.integers(1, 1_000_000)

# 5,000 reports a month, 45 USD to tune, 0.12 → 0.008 USD a report, corrections 15 → 1 hour a month.
REPORTS, TUNING, SAVING = 5_000, 45.0, 0.12 - 0.008


def test_the_worked_example_without_labour() -> None:
    """45 USD at 11.2 cents a report are back after 402 reports, about two and a half days, and 560 USD a month follow."""
    assert requests_until_paid(TUNING, SAVING) == 402
    assert months_until_paid(TUNING, SAVING, 0.0, REPORTS) == pytest.approx(45 / 560)
    assert saving_per_month(SAVING, 0.0, REPORTS) == pytest.approx(560)


def test_the_worked_example_with_labour_at_40_usd_an_hour() -> None:
    """14 hours of corrections saved double the saving: 201 reports, 1,120 USD a month."""
    saving = SAVING + (15 - 1) * 40 / REPORTS
    assert requests_until_paid(TUNING, saving) == 201
    assert saving_per_month(saving, 0.0, REPORTS) == pytest.approx(1_120)


def test_the_worked_examples_corrections_are_those_of_the_spec() -> None:
    """12 % of 5,000 reports are 600 to correct in 15 hours, 0.8 % are 40 in one: 1.5 minutes each, both times."""
    use = {"minutes_per_wrong_answer": 1.5, "usd_per_hour_of_work": 40}
    per_wrong = usd_per_wrong_answer(parse_spec({"name": "reports", "data": {"source": "x"}, "use": use}))
    before, after = (REPORTS * (1 - compliance) * per_wrong for compliance in (0.88, 0.992))
    assert (before, after) == (pytest.approx(15 * 40), pytest.approx(1 * 40))


def test_the_worked_example_is_paid_back_within_the_first_month() -> None:
    """With and without labour."""
    for saving in (SAVING, SAVING + 14 * 40 / REPORTS):
        months = months_until_paid(TUNING, saving, 0.0, REPORTS)
        assert months is not None
        assert months < 1


@given(tuning=usd, saving=cents)
def test_break_even_is_the_first_request_that_pays(tuning: float, saving: float) -> None:
    """Requests × saving covers the tuning, and one request fewer does not."""
    requests = requests_until_paid(tuning, saving)
    assert requests is not None
    assert requests * Fraction(saving) >= Fraction(tuning)
    assert (requests - 1) * Fraction(saving) < Fraction(tuning)


@given(tuning=usd, saving=cents, hosting=usd, volume=volumes)
def test_hosting_is_paid_too(tuning: float, saving: float, hosting: float, volume: int) -> None:
    """At the break-even with hosting, savings cover tuning and the hosting of the months until then; a request earlier they do not."""
    requests = requests_until_paid(tuning, saving, hosting, volume)
    if requests is None:
        assert volume * Fraction(saving) <= Fraction(hosting)
        return

    def left(count: int) -> Fraction:
        return count * Fraction(saving) - Fraction(tuning) - Fraction(hosting) * Fraction(count, volume)

    assert left(requests) >= 0 > left(requests - 1)


@given(tuning=usd, saving=cents, hosting=st.one_of(st.just(0.0), usd), volume=volumes, more=volumes)
def test_more_volume_never_delays(tuning: float, saving: float, hosting: float, volume: int, more: int) -> None:
    """Where a request saves something, more requests a month never pay back later."""
    few, many = (months_until_paid(tuning, saving, hosting, count) for count in (volume, volume + more))
    if few is not None:
        assert many is not None
        assert many <= few


@given(saving=cents, hosting=usd)
def test_hosting_is_covered_from_a_volume_on(saving: float, hosting: float) -> None:
    """At that volume a month loses nothing; with a request fewer it does."""
    volume = volume_for_hosting(saving, hosting)
    assert volume is not None
    assert volume * Fraction(saving) >= Fraction(hosting) > (volume - 1) * Fraction(saving)


@given(tuning=usd, saving=cents, once=cents)
def test_the_curves_cross_at_the_break_even(tuning: float, saving: float, once: float) -> None:
    """Before it the tuned option has cost more, from it on it has not."""
    requests = requests_until_paid(tuning, saving)
    assume(requests is not None and requests > 1)
    assert requests is not None
    before, after = requests - 1, requests + 1
    assert cumulative_usd(before, once, tuning) > cumulative_usd(before, once + saving) - 1e-6
    assert cumulative_usd(after, once, tuning) < cumulative_usd(after, once + saving) + 1e-6


@pytest.mark.parametrize(
    ("tuning", "saving", "hosting", "volume", "requests", "months"),
    [
        pytest.param(45, 0.0, 0, 5_000, None, None, id="no saving: never"),
        pytest.param(45, -0.1, 0, 5_000, None, None, id="dearer: never"),
        pytest.param(0, 0.1, 0, 5_000, 0, 0.0, id="tuning costs nothing: at once"),
        pytest.param(0, 0.0, 0, 5_000, 0, 0.0, id="nothing costs anything: at once"),
        pytest.param(0, -0.1, 0, 5_000, None, None, id="free but dearer: never"),
        pytest.param(45, 0.1, 0, 0, 450, None, id="no volume: requests are known, months are never"),
        pytest.param(45, 0.1, 10, 0, None, None, id="no volume with hosting: never"),
        pytest.param(45, 0.1, 0, None, 450, None, id="unknown volume: requests are known"),
        pytest.param(45, 0.1, -100, 0, None, 0.45, id="work saved pays without a request: months alone"),
        pytest.param(0, 0.1, -100, 0, 0, 0.0, id="work saved and nothing to pay back: at once"),
        pytest.param(45, 0.1, 10, None, None, None, id="unknown volume with hosting: not to be said"),
        pytest.param(45, 0.1, 500, 5_000, None, None, id="savings just cover hosting: never"),
        pytest.param(0, 0.1, 500, 5_000, 0, 0.0, id="savings just cover hosting and tuning was free: at once"),
        pytest.param(45, 0.1, 410, 5_000, 2_500, 0.5, id="hosting delays"),
        pytest.param(45, 0.0, -90, 5_000, 2_500, 0.5, id="hosting saved pays"),
    ],
)
def test_edges(tuning: float, saving: float, hosting: float, volume: int | None, requests: int | None, months: float | None) -> None:
    """Never, at once, no volume."""
    saving, hosting = (Fraction(str(value)) for value in (saving, hosting))  # type: ignore[assignment]
    assert requests_until_paid(tuning, saving, hosting, volume) == requests
    assert months_until_paid(tuning, saving, hosting, volume) == months


def test_saving_per_month_needs_a_volume() -> None:
    """Without a volume nothing is said; with none at all, hosting is lost."""
    assert saving_per_month(0.1, 10, None) is None
    assert saving_per_month(0.1, 10, 0) == -10


def test_hosting_that_only_an_absurd_volume_covers_is_not_covered() -> None:
    """A saving that is as good as none gives no volume to hope for."""
    assert volume_for_hosting(0.25, 250_000_000) == 1_000_000_000
    assert volume_for_hosting(0.25, 250_000_001) is None
    assert volume_for_hosting(3.4e-9, 1_241) is None
    assert volume_for_hosting(-0.1, 10) is None


@pytest.mark.parametrize(
    ("arguments", "shown", "hidden"),
    [
        (["--requests-per-month", "0", "--work-saved", "100"], "after 0.45 months", "requests"),
        (["--requests-per-month", "5000"], "after 450 requests", "never"),
        (["--hosting", "10"], "not to be said without --requests-per-month", "after"),
        (["--requests-per-month", "10", "--hosting", "10"], "never at these figures", "after"),
    ],
)
def test_the_command_says_when_tuning_is_paid_back(arguments: list[str], shown: str, hidden: str) -> None:
    """In months alone where no request is answered for it."""
    fixed = ["break-even", "--tuning", "45", "--before", "0.2", "--after", "0.1"]
    result = CliRunner().invoke(main, [*fixed, *arguments])
    assert result.exit_code == 0, result.output
    told = result.stdout[result.stdout.index("paid back") :]
    assert shown in told
    assert hidden not in told


def test_a_curve_shows_the_break_even_in_its_middle() -> None:
    """To twice the break-even; without one over a year; without a volume far enough to see."""
    assert reach(402, 5_000) == 804
    assert reach(None, 100) == 1_200
    assert reach(None, None) == reach(0, 0) == 10_000


def test_hosting_counts_by_time() -> None:
    """Half a month's requests carry half a month's hosting."""
    assert cumulative_usd(2_500, 0.01, 45, 410, 5_000) == pytest.approx(45 + 25 + 205)


def test_the_page_of_the_documentation_tells_these_figures() -> None:
    """The worked example, and what hosting at 1.70 USD an hour makes of it."""
    page = (ROOT / "docs" / "how-to" / "decide-whether-tuning-pays.md").read_text(encoding="utf-8")
    hosting = 1.70 * 730
    figures = {
        f"after {requests_until_paid(TUNING, SAVING)} reports",
        f"**{requests_until_paid(TUNING, SAVING + 14 * 40 / REPORTS)} reports**",
        f"takes {volume_for_hosting(SAVING, hosting):,} of them",
        f"paid back after {requests_until_paid(TUNING, SAVING, hosting, 20_000)} reports",
        f"| 402 | {cumulative_usd(402, 0.12):.2f} USD | {cumulative_usd(402, 0.008, TUNING):.2f} USD | {402 * 0.232:.2f} USD |",
        f"| 5,000 | {cumulative_usd(5_000, 0.12):.0f} USD | {cumulative_usd(5_000, 0.008, TUNING):.0f} USD | {5_000 * 0.232:,.0f} USD |",
    }
    assert {figure for figure in figures if figure not in page} == set()
    assert requests_until_paid(TUNING, SAVING, hosting, REPORTS) is None
