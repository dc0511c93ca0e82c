"""What the page promises on any stack that has the example's marts: kept here on a local server, and in tests/e2e."""

import json
import re
from decimal import Decimal
from urllib.parse import quote, urlencode

import pytest
from playwright.sync_api import expect
from pyarrow import ipc, parquet

from .browser import AXE, SCREENSHOTS

API = "/api/analytics/datasets"
MART = "fct_transactions"
ROWS = 50
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 900}


class Text(str):
    """A number, as its digits."""

    __slots__ = ()


def exactly(text):
    """JSON with every number as its digits."""
    return json.loads(text, parse_int=Text, parse_float=Text)


def as_shown(value):
    """A value of an answer as the page has to show it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return written(value) if isinstance(value, list | dict) else str(value)


def written(value):
    """JSON again, with the digits that came."""
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{written(name)}:{written(item)}' for name, item in value.items())}}}"
    return str(value) if isinstance(value, Text) else json.dumps(value, ensure_ascii=False)


def rows(site, query="", mart=MART, user=1):
    """Rows of the API as the page has to show them."""
    answer = exactly(site.get(f"{API}/{mart}/query?limit={ROWS}&{query}", user).text)
    return [[as_shown(row[column["name"]]) for column in answer["columns"]] for row in answer["rows"]]


def cells(page, table="#rows"):
    rows = f"document.querySelectorAll('{table} tbody tr')"
    return page.evaluate(f"[...{rows}].map(row => [...row.cells].map(cell => cell.textContent))")


def sign_in(page, site, user=1, at=f"#{MART}"):
    page.goto(f"/{at}")
    page.get_by_label("Token").fill(site.token(user))
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#view")).to_be_visible()


def showing(page, text):
    expect(page.locator("#range")).to_have_text(text)


def total(site, query=""):
    """How many rows the API has for this."""
    return int(site.get(f"{API}/{MART}/query?select=count()&{query}").json()["rows"][0]["count"])


# In the order in which Tab comes to them; some are many, of which the first counts.
STOPS = [
    "#skip",
    "#sign-out",
    "#datasets a",
    "summary",
    "#filter-column",
    "#filter-operator",
    "#filter-value",
    "#filter button",
    "#scroll",
    "#rows thead button",
    "#previous",
    "#next",
    "#formats a",
    "footer a",
]


def walk(page):
    """Where Tab leads from the top of the page to its end."""
    found = []
    while True:
        page.keyboard.press("Tab")
        stop = page.evaluate(STOP, STOPS)
        if stop["end"]:
            return found
        found.append(stop)
        assert len(found) < 200, "Tab goes round and round"


def downloaded(page, name):
    with page.expect_download() as download:
        page.get_by_role("link", name=name, exact=True).click()
    return download.value


def read_arrow(path):
    with ipc.open_stream(path) as reader:
        return reader.read_all()


class Promises:
    """``site`` and ``open_tab`` are fixtures of the suite."""

    @pytest.fixture
    def page(self, site, open_tab):
        page = open_tab(site)
        sign_in(page, site)
        return page

    def test_every_dataset_is_shown_as_the_api_describes_and_returns_it(self, site, page):
        answer = exactly(site.get(API).text)
        for dataset in answer["datasets"]:
            item = page.locator("#datasets li", has=page.get_by_role("link", name=dataset["name"], exact=True))
            expect(item).to_contain_text(dataset["description"])
            expect(item).to_contain_text(f"{dataset['row_count']} row")
            item.get_by_role("link").click()
            expect(page.get_by_role("heading", level=2)).to_have_text(dataset["name"])
            heads = page.locator("#rows thead th").all_text_contents()
            assert heads == [column["name"] + column["type"] for column in dataset["columns"]]
            assert cells(page) == rows(site, mart=dataset["id"])
            count = int(dataset["row_count"])
            showing(page, f"Rows 1 to {min(count, ROWS)} of {count}" if count else "No rows")
        expect(page.locator("#snapshot")).to_have_text(f"· snapshot {answer['snapshot']}" if answer["snapshot"] else "")
        assert page.locator("#refreshed").get_attribute("datetime") == answer["last_refresh"]
        expect(page.locator("#age")).to_have_text(re.compile(r"^[\d,]+ (second|minute|hour|day)s? ago$"))

    def test_a_head_sorts_up_down_and_not(self, site, page):
        head = page.get_by_role("columnheader", name="amount")
        for order, state in (("amount.asc", "ascending"), ("amount.desc", "descending"), ("", None)):
            head.get_by_role("button").click()
            if state:
                expect(head).to_have_attribute("aria-sort", state)
            else:
                expect(head).not_to_have_attribute("aria-sort", re.compile("."))
            assert cells(page) == rows(site, f"order={order}" if order else "")
            expect(head.get_by_role("button")).to_be_focused()

    def test_filters_narrow_rows_and_count_and_can_be_taken_away(self, site, page):
        value = min(row["amount"] for row in site.get(f"{API}/{MART}/query").json()["rows"])
        name = site.get(f"{API}/{MART}/query?limit=1").json()["rows"][0]["category_name"]
        for column, condition, text in (("category_name", "is", name), ("amount", "is at least", str(value))):
            page.get_by_label("Column").select_option(column)
            page.get_by_label("Condition").select_option(condition)
            page.get_by_label("Value").fill(text)
            page.get_by_role("button", name="Add filter").click()
            expect(page.get_by_role("list", name="Filters in use")).to_contain_text(f"{column} {condition} {text}")
        query = urlencode({"category_name": f"eq.{name}", "amount": f"gte.{value}"})
        count = total(site, query)
        showing(page, f"Rows 1 to {min(count, ROWS)} of {count}")
        assert cells(page) == rows(site, query)
        assert 0 < count < total(site)
        page.reload()
        showing(page, f"Rows 1 to {min(count, ROWS)} of {count}")
        page.get_by_role("button", name=f"Remove the filter category_name is {name}").click()
        expect(page.locator("#filters li")).to_have_count(1)
        assert cells(page) == rows(site, f"amount=gte.{value}")

    def test_what_the_api_refuses_is_said_in_its_words_and_nothing_else_changes(self, page):
        before = cells(page)
        page.get_by_label("Column").select_option("amount")
        page.get_by_label("Condition").select_option("is at least")
        page.get_by_label("Value").fill("plenty")
        page.get_by_role("button", name="Add filter").click()
        expect(page.get_by_role("alert")).to_contain_text("amount")
        expect(page.get_by_role("alert")).to_contain_text("plenty")
        assert cells(page) == before
        assert "plenty" not in page.url

    def test_pages_follow_each_other_and_back_is_back(self, site, page):
        count = total(site)
        for offset in (ROWS, 2 * ROWS):
            page.get_by_role("button", name="Next").click()
            showing(page, f"Rows {offset + 1} to {min(count, offset + ROWS)} of {count}")
            assert cells(page) == rows(site, f"offset={offset}")
        page.go_back()
        showing(page, f"Rows {ROWS + 1} to {2 * ROWS} of {count}")
        page.get_by_role("button", name="Previous").click()
        showing(page, f"Rows 1 to {ROWS} of {count}")
        page.get_by_role("button", name="Previous").click(force=True)  # there is none
        assert cells(page) == rows(site)

    def test_downloads_are_all_rows_of_the_filters_in_their_order(self, site, page):
        name = site.get(f"{API}/{MART}/query?limit=1").json()["rows"][0]["category_name"]
        page.goto(f"/#{MART}?order=amount.desc&category_name={quote('eq.' + name)}")
        expect(page.locator("#filters li")).to_have_count(1)
        query = urlencode({"order": "amount.desc", "category_name": f"eq.{name}", "limit": 10000})
        answer = exactly(site.get(f"{API}/{MART}/query?{query}").text)

        text = downloaded(page, "CSV")
        assert text.path().read_bytes() == site.get(f"{API}/{MART}/query?{query}&format=csv").content
        assert re.fullmatch(rf"{MART}_\w.*\.csv", text.suggested_filename)
        for format_, read in (("Arrow", read_arrow), ("Parquet", parquet.read_table)):
            table = read(downloaded(page, format_).path())
            assert table.column_names == [column["name"] for column in answer["columns"]]
            assert table["amount"].to_pylist() == [Decimal(row["amount"]) for row in answer["rows"]]
            assert table["transaction_id"].to_pylist() == [int(row["transaction_id"]) for row in answer["rows"]]
        shown = exactly(downloaded(page, "JSON of this page").path().read_text(encoding="utf-8"))
        assert shown["rows"] == answer["rows"][:ROWS]

    def test_amounts_over_time_are_drawn_and_told(self, site, page):
        figure = page.get_by_role("figure")
        assert figure.get_attribute("data-kind") == "time"
        title = page.locator("#chart-title").text_content()
        unit = re.fullmatch(r"Sum of amount by (\w+) of posted_on\.", title)[1]
        query = f"select=by:posted_on.trunc({unit}),value:amount.sum()&order=by&limit=1000"
        expected = exactly(site.get(f"{API}/{MART}/query?{query}").text)["rows"]
        figure.get_by_text("The chart as a table").click()
        assert cells(page, "#chart-table") == [[row["by"], row["value"]] for row in expected]
        expect(page.locator("#chart-summary")).to_contain_text(f"{len(expected)} values")
        assert page.evaluate(DRAWN) > 0

    def test_who_signs_out_leaves_nothing(self, site, open_tab):
        page = open_tab(site)
        page.goto("/")
        page.get_by_label("Token").fill("no.token.atall")
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#sign-in-problem")).to_contain_text("not valid")
        sign_in(page, site, user=2)
        expect(page.locator("#who")).to_have_text("Signed in as user 2")
        assert cells(page) == rows(site, user=2)
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
        assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]
        assert site.token(2) not in page.content() + page.url
        telling = {text for row in cells(page) for text in row if len(text) > 8}
        assert telling
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Token")).to_be_focused()
        assert page.context.cookies() == []
        left = page.content()
        assert {text for text in telling if text in left} == set()
        page.reload()
        expect(page.get_by_label("Token")).to_be_visible()

    def test_all_of_it_works_by_keyboard(self, site, open_tab):
        page = open_tab(site)
        page.goto(f"/#{MART}")
        expect(page.get_by_label("Token")).to_be_focused()
        page.keyboard.type(site.token(1))
        page.keyboard.press("Enter")
        expect(page.locator("#view")).to_be_visible()
        page.reload()
        expect(page.locator("#view")).to_be_visible()
        walked = walk(page)
        assert all(stop["outlined"] for stop in walked)
        order = [next(index for index, stop in enumerate(walked) if selector in stop["is"]) for selector in STOPS]
        assert order == sorted(order)

        page.locator("#skip").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#content")).to_be_focused()
        assert page.url.endswith(f"#{MART}")
        page.get_by_role("button", name="amount").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("columnheader", name="amount")).to_have_attribute("aria-sort", "ascending")
        assert cells(page) == rows(site, "order=amount.asc")
        page.locator("#next").focus()
        page.keyboard.press("Space")
        showing(page, f"Rows {ROWS + 1} to {2 * ROWS} of {total(site)}")
        expect(page.locator("#next")).to_be_focused()

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("screen", [PHONE, DESKTOP], ids=["phone", "desktop"])
    def test_it_fits_the_screen_and_can_be_read(self, site, open_tab, request, scheme, screen):
        page = open_tab(site, viewport=screen, color_scheme=scheme, has_touch=screen is PHONE)
        page.goto("/")
        expect(page.get_by_label("Token")).to_be_visible()
        self.look_at(page, request, "sign-in")
        sign_in(page, site)
        self.look_at(page, request, "rows")
        page.get_by_text("About the columns").click()
        page.get_by_text("The chart as a table").click()
        self.look_at(page, request, "open")
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(part => part < 64)")
        assert dark == (scheme == "dark")

    def look_at(self, page, request, what):
        """Keep a picture; nothing wider than the screen, and nothing that axe finds."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"\W+", "-", f"{request.node.path.parent.name} {request.node.callspec.id} {what}")
        page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.evaluate(AXE.read_text(encoding="utf-8"))  # not as an element: the page's policy refuses that
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []

    def test_the_reference_needs_nobody_else(self, site, open_tab):
        page = open_tab(site)
        page.goto("/docs")
        expect(page.get_by_text("/api/analytics/datasets/{dataset_id}/query")).to_be_visible()


STOP = """selectors => {
    const at = document.activeElement, {outlineStyle, outlineWidth} = getComputedStyle(at);
    const outlined = outlineStyle !== "none" && outlineWidth !== "0px";
    return {end: at === document.body, outlined, is: selectors.filter(selector => at.matches(selector))};
}"""

DRAWN = """() => {
    const canvas = document.querySelector("#plot canvas");
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.filter((value, index) => index % 4 === 3 && value > 0).length;
}"""
