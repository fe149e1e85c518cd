"""Sessions of `requests` that send a request again as hvac's documentation shows, and count that."""

import threading

import requests
from urllib3.util import Retry


class Repeated(Retry):
    """Counts the requests that a thread sends again."""

    counts = threading.local()

    @classmethod
    def count(cls) -> int:
        return getattr(cls.counts, "repeated", 0)

    def increment(self, *arguments, **named):
        self.counts.repeated = self.count() + 1
        return super().increment(*arguments, **named)


class Session(requests.Session):
    """A session for every client of hvac."""

    def __init__(self):
        super().__init__()
        retries = Repeated(total=8, backoff_factor=0.1, backoff_max=2, status_forcelist=[412, 500, 502, 503, 504],
                           allowed_methods=None, raise_on_status=False)
        for scheme in ("http://", "https://"):
            self.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retries))
