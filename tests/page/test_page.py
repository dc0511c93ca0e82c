"""The page on a server of its own: what it promises anywhere, and what needs data made for it."""

import re
import subprocess
import sys
from contextlib import contextmanager
from subprocess import PIPE

import pytest
from playwright.sync_api import expect

from backend.scripts.bootstrap_duckdb import refresh_duckdb_file

from .marts import BIGGEST, MARKUP, ODD, categories, publish
from .promises import MART, Promises, cells, rows, showing, sign_in
from .recorder import observe, observed

CATEGORIES = "#dim_categories"


class TestPromises(Promises):
    """On one snapshot."""


class TestPromisesOnTheFile:
    """Phase 0 has no snapshots."""

    @pytest.fixture
    def site(self, file_site):
        return file_site

    page = Promises.page
    test_every_dataset = Promises.test_every_dataset_is_shown_as_the_api_describes_and_returns_it
    test_amounts_over_time = Promises.test_amounts_over_time_are_drawn_and_told
    test_pages = Promises.test_pages_follow_each_other_and_back_is_back


# --- to the letter ----------------------------------------------------------------------------------------------------
def test_every_digit_and_every_letter_is_there(site, open_tab):
    page = open_tab(site)
    sign_in(page, site)
    first, second, third, fourth = (dict(zip(columns(page), row, strict=True)) for row in cells(page)[:4])
    assert first["transaction_id"] == str(BIGGEST)
    assert first["amount"] == "997.10"
    assert first["precise"] == "1234567890123456789012345678.9012345670"
    assert (first["ratio"], second["ratio"], third["ratio"], fourth["ratio"]) == ("NaN", "100.0", "0.1", "null")
    assert first["tags"] == f"[{BIGGEST},null,0]"
    assert (first["description"], second["description"]) == ("null", "null")
    missing, written = (page.locator("#rows tbody tr").nth(index).locator("td").nth(9) for index in (0, 1))
    assert [cell.evaluate("cell => getComputedStyle(cell).fontStyle") for cell in (missing, written)] == [
        "italic",
        "normal",
    ]
    assert (third["description"], fourth["description"]) == (MARKUP, "  two  spaces")
    assert page.locator("img").count() == 0


def columns(page):
    return page.locator("#rows thead button").all_text_contents()


def test_numbers_by_a_text_are_bars_and_neither_is_no_chart(site, open_tab):
    page = open_tab(site)
    sign_in(page, site, at=CATEGORIES)
    figure = page.locator("#chart")
    expect(figure).to_have_attribute("data-kind", "bars")
    expect(page.locator("#chart-title")).to_have_text("Sum of generation by name.")
    assert cells(page, "#chart-table") == [[f"category {index}", "1"] for index in range(categories(1))]
    page.get_by_role("link", name="Merchants").click()
    expect(page.get_by_role("heading", level=2)).to_have_text("Merchants")
    expect(figure).to_be_hidden()


@pytest.mark.parametrize("name", ODD)
def test_a_column_of_any_name_sorts_and_filters(site, open_tab, name):
    page = open_tab(site)
    sign_in(page, site, at="#dim_merchants")
    head = page.get_by_role("columnheader").nth(1 + ODD.index(name))
    for state in ("ascending", "descending"):
        head.get_by_role("button").click()
        expect(head).to_have_attribute("aria-sort", state)
    page.get_by_label("Column").select_option(index=1 + ODD.index(name))
    page.get_by_label("Condition").select_option("neq.")
    page.get_by_label("Value").fill("merchant 1")
    page.get_by_role("button", name="Add filter").click()
    showing(page, "Rows 1 to 2 of 2")
    assert cells(page) == [[str(number), *[f"merchant {number}"] * len(ODD)] for number in (2, 0)]


def test_a_chart_follows_the_filters_and_the_colours(site, open_tab):
    page = open_tab(site, color_scheme="light")
    sign_in(page, site, at=f"{CATEGORIES}?name=in.(category 1,category 3)")
    expect(page.locator("#filters")).to_contain_text("name is one of (category 1,category 3)")
    assert cells(page, "#chart-table") == [["category 1", "1"], ["category 3", "1"]]
    pixels = "document.querySelector('#plot canvas').toDataURL()"
    light = page.evaluate(pixels)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"light => {pixels} !== light", arg=light)


# --- updates ----------------------------------------------------------------------------------------------------------
def is_whole(state, generations):
    """Whether everything shown at that moment is of one generation."""
    generation = generations[state["state"]]
    one = {
        "rows": [generation],
        "chart": [generation],
        "count": categories(generation),
        "listed": categories(generation),
    }
    return {name: state[name] for name in one} == one


@pytest.fixture
def following(own_site, store):
    """``following(page)``: what is seen in a tab with the categories while two more generations are published."""

    def followed(page):
        sign_in(page, own_site, at=CATEGORIES)
        observe(page)
        generations = {store.manifests()[0].created_at.isoformat(): 1}
        for generation in (2, 3):
            generations[publish(store, generation).created_at.isoformat()] = generation
            showing(page, f"Rows 1 to {categories(generation)} of {categories(generation)}")
        return observed(page), generations

    return followed


def test_a_published_snapshot_is_shown_by_itself_and_never_half(own_site, store, open_tab, following):
    page = open_tab(own_site)
    states, generations = following(page)
    assert [state for state in states if not is_whole(state, generations)] == []
    assert {generations[state["state"]] for state in states} == {1, 2, 3}
    assert states[-1]["snapshot"] == store.current_id()
    expect(page.locator("#announcement")).to_contain_text("New data, as of")


def test_a_page_that_shows_a_part_later_would_be_found_out(own_site, open_tab, following):
    """The control."""

    def broken(route):
        answer = route.fetch()
        late = "((...all) => setTimeout(() => table.show(...all), 50))("
        assert "table.show(" in answer.text()
        route.fulfill(response=answer, body=answer.text().replace("table.show(", late))

    page = open_tab(own_site)
    page.route("**/page/render.js", broken)
    states, generations = following(page)
    assert [state for state in states if state["rows"] and not is_whole(state, generations)]


@pytest.mark.parametrize("part", ["main.js", "table.js", "style.css", "vendor/uPlot.iife.min.js"])
def test_a_part_of_the_page_that_does_not_arrive_is_asked_for_again(site, open_tab, part):
    page = open_tab(site)
    page.clock.install()
    page.route(f"**/page/{part}", lambda route: route.abort())
    words = page.get_by_text("A part of the page did not arrive. Trying again …")
    page.goto("/")
    expect(words).to_be_visible()
    page.unroute(f"**/page/{part}")
    with page.expect_navigation(), page.expect_request(f"**/page/{part}"):
        page.clock.run_for(3_000)
    expect(page.get_by_label("Token")).to_be_visible()
    expect(words).to_have_count(0)


def test_a_publish_between_the_two_requests_of_a_load_is_not_mixed_in(own_site, store, open_tab):
    page = open_tab(own_site)
    sign_in(page, own_site)
    observe(page)
    generations = {store.manifests()[0].created_at.isoformat(): 1}

    def publish_first(route):
        if len(generations) == 1:
            generations[publish(store, 2).created_at.isoformat()] = 2
        route.continue_()

    page.route("**/api/analytics/query", publish_first)
    page.get_by_role("link", name="Categories").click()
    showing(page, f"Rows 1 to {categories(2)} of {categories(2)}")
    states = [state for state in observed(page) if state["name"] == "Categories"]
    assert [state for state in states if not is_whole(state, generations)] == []


def test_a_file_replaced_between_the_two_requests_of_a_load_is_not_mixed_in(file_site, store, duckdb_file, open_tab):
    page = open_tab(file_site)
    sign_in(page, file_site)
    observe(page)
    generations = {store.manifests()[0].created_at.isoformat(): 1}

    def replace_first(route):
        if len(generations) == 1:
            generations[publish(store, 2).created_at.isoformat()] = 2
            refresh_duckdb_file(store, duckdb_file)
        route.continue_()

    page.route("**/api/analytics/query", replace_first)
    page.get_by_role("link", name="Categories").click()
    showing(page, f"Rows 1 to {categories(2)} of {categories(2)}")
    states = [state for state in observed(page) if state["name"] == "Categories"]
    assert [state for state in states if not is_whole(state, generations)] == []


def test_a_snapshot_that_is_gone_by_the_second_request_is_not_insisted_on(site, open_tab):
    page = open_tab(site)
    asked = []

    def gone(route):
        asked.append(route.request.post_data)
        if len(asked) == 1:
            error = {"code": "snapshot_gone", "message": "gone", "hint": "start again"}
            route.fulfill(status=410, json={"error": error})
        else:
            route.continue_()

    page.route("**/api/analytics/query", gone)
    sign_in(page, site)
    showing(page, "Rows 1 to 50 of 120")
    assert len(asked) > 1
    expect(page.get_by_role("alert")).to_be_hidden()


@contextmanager
def locked(path):
    """As a build of phase 0 does: by another process."""
    hold = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('locked', flush=True); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", hold, path], stdin=PIPE, stdout=PIPE)
    with process:
        assert process.stdout.readline() == b"locked\n"
        yield
        process.stdin.close()


def test_while_the_file_is_locked_what_was_there_stays(file_site, duckdb_file, store, open_tab):
    page = open_tab(file_site)
    sign_in(page, file_site, at=CATEGORIES)
    before = cells(page)
    with locked(duckdb_file):
        expect(page.locator("#notice")).to_contain_text("being rebuilt")
        assert cells(page) == before
        page.get_by_role("link", name="Transactions").click()
        expect(page.locator("#notice")).to_contain_text("Trying again")
        assert cells(page) == before
    expect(page.get_by_role("heading", level=2)).to_have_text("Transactions")
    expect(page.locator("#notice")).to_be_empty()


def test_a_row_less_than_the_page_one_is_on_leads_to_the_last_page(site, open_tab):
    page = open_tab(site)
    sign_in(page, site, at=f"#{MART}?offset=5000")
    showing(page, "Rows 101 to 120 of 120")
    assert cells(page) == rows(site, "offset=100")


# --- who and when -----------------------------------------------------------------------------------------------------
def test_whose_token_ended_is_asked_for_another_and_sees_nothing_meanwhile(site, open_tab):
    page = open_tab(site)
    sign_in(page, site, at=CATEGORIES)
    page.context.clear_cookies()
    page.get_by_role("link", name="Transactions").click()
    expect(page.locator("#sign-in-problem")).to_contain_text("Please sign in again")
    assert cells(page) == []
    assert page.locator("#view").is_hidden()
    page.get_by_label("Token").fill(site.token(2))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=2)).to_have_text("Transactions")
    assert cells(page) == rows(site, user=2)


def test_all_tabs_of_a_visitor_show_the_same_user(site, open_tab):
    page = open_tab(site)
    sign_in(page, site)
    other = page.context.new_page()
    other.goto(f"/#{MART}")
    expect(other.locator("#who")).to_have_text("Signed in as user 1")
    page.get_by_role("button", name="Sign out").click()
    expect(other.get_by_label("Token")).to_be_visible()
    sign_in(page, site, user=2)
    expect(other.locator("#who")).to_have_text("Signed in as user 2")
    expect(other.locator("#view")).to_be_visible()
    assert cells(other) == rows(site, user=2)


def test_the_age_of_the_data_grows_by_the_servers_clock(site, open_tab):
    page = open_tab(site)
    page.clock.install(time="1999-12-31T00:00:00Z")
    sign_in(page, site)
    expect(page.locator("#age")).to_contain_text(re.compile("second|minute"))
    page.clock.fast_forward("03:00:00")
    expect(page.locator("#age")).to_have_text("3 hours ago")


def test_a_token_is_never_sent_where_it_would_be_kept(site, open_tab):
    page = open_tab(site)
    requests = []
    page.on("request", lambda request: requests.append(request))  # noqa: PLW0108 - it wants a function of Python's
    sign_in(page, site)
    showing(page, "Rows 1 to 50 of 120")
    head = site.token(1).partition(".")[0]  # the same in all tokens
    assert [request.url for request in requests if head in request.url] == []
    assert [request.method for request in requests if head in (request.post_data or "")] == ["POST"]
