"""Every state that a page was in, as one who looks all the time would see it."""

OBSERVE = """() => {
    const texts = selector => [...document.querySelectorAll(selector)].map(found => found.textContent);
    const number = text => Number(text.match(/\\d+/)?.[0] ?? NaN);
    window.states = [];
    const note = () => {
        const heads = texts("#rows thead th button").map(text => text.replace(/ .*/, ""));
        const nth = heads.indexOf("generation") + 1;
        window.states.push({
            name: document.querySelector("#dataset-name").textContent,
            state: document.querySelector("#refreshed").dateTime,
            snapshot: document.querySelector("#snapshot").textContent.replace("· snapshot ", ""),
            rows: [...new Set(texts(`#rows tbody td:nth-child(${nth})`).map(Number))],
            chart: [...new Set(texts("#chart-table tbody td").map(Number))],
            count: number(texts("#range")[0].replace(/.* of /, "")),
            listed: number(texts("#datasets [aria-current] + .count")[0]),
        });
    };
    const everything = {subtree: true, childList: true, characterData: true, attributes: true};
    new MutationObserver(note).observe(document.body, everything);
    note();
}"""


def observe(page):
    page.evaluate(OBSERVE)


def observed(page):
    """The states since ``observe``, each once, in order."""
    states = page.evaluate("window.states")
    return [state for index, state in enumerate(states) if index == 0 or state != states[index - 1]]
