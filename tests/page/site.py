"""The API with its page on a port of this machine, as the promises need it: a URL, and tokens for it."""

from contextlib import contextmanager
from datetime import timedelta

import httpx

from backend import auth
from tests.serving import served
from tests.unit.backend.api import SECRET, open_api


class Site:
    """What is served at ``url``; a token is for a user."""

    def __init__(self, url, token):
        self.url = url
        self.token = token

    def get(self, path, user=1):
        answer = httpx.get(self.url + path, headers={"Authorization": f"Bearer {self.token(user)}"}, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer


def token(user, *, ttl=3600):
    return auth.issue(SECRET, user_id=user, ttl=timedelta(seconds=ttl))


@contextmanager
def serving(**settings):
    """A server in a thread of this process."""
    client, _ = open_api(**settings)
    with served(client.app) as url:
        yield Site(url, token)
