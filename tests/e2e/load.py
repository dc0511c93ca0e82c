"""Clients that keep an API busy, each on a connection that it keeps, and note every request without a whole answer."""

import threading
import uuid

import httpx

from .stack import wait_for

GET = "/api/analytics/datasets/fct_transactions/query"
QUERIES = [{"dataset": "fct_transactions", "limit": 1000}, {"dataset": "dim_categories"}]


class Load:
    """GET and POST in turn: ten clients and this pace are 100 requests per second and more where nothing else runs."""

    def __init__(self, stack, *, clients=10, pace=0.05):
        self.answered = 0
        self.failures = []
        self._pace = pace
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(stack.api(),)) for _ in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.go_on()
        return self

    def __exit__(self, *_):
        self._done.set()
        for thread in self._threads:
            thread.join()

    def go_on(self, requests=200):
        """Wait until so many more requests were made, whatever became of them."""
        begun = self._made()
        wait_for(lambda: self._made() >= begun + requests, f"{requests} more requests", seconds=120)

    def _made(self):
        return self.answered + len(self.failures)

    def _run(self, api):
        with api:
            while not self._done.wait(self._pace):
                for ask in (self._get, self._post):
                    failure = self._asked(ask, api)
                    with self._lock:
                        if failure:
                            self.failures.append(failure)
                        else:
                            self.answered += 1

    def _asked(self, ask, api):
        """What went wrong, if anything did."""
        request_id = uuid.uuid4().hex
        try:
            answer = ask(api, {"X-Request-Id": request_id})
            if answer.status_code != 200:
                return answer
            answers = answer.json().get("results") or [answer.json()]
            assert [len(one["rows"]) for one in answers] == [one["row_count"] for one in answers]
            assert answer.headers["X-Request-Id"] == request_id
        except (httpx.HTTPError, ValueError, KeyError, AssertionError) as error:
            return error
        return None

    def _get(self, api, headers):
        return api.get(GET, headers=headers)

    def _post(self, api, headers):
        return api.post("/api/analytics/query", json={"queries": QUERIES}, headers=headers)
