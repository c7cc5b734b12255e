#!/usr/bin/env python3
"""Compares what a browser has seen of the orders example's page with what the program has printed.

Usage: orders_page.py balanced|unbalanced PRINTED PAGE...   The pages in the order in which they were seen, the last one after the end.
"""

import re
import sys
from html.parser import HTMLParser

PHASES = {"orders come in", "all orders are through, cleaning up", "the books balance", "the books do not balance"}
# Counts of what has happened: they never go back, whoever is killed.
GROWING = ["placed", "shipped", "refused", "kills", "duplicates", "replays", "acknowledgements", "shop_paid", "provider_paid"]
# Every figure that the page has to show.
FIGURES = set(GROWING) | {
    "seed", "seconds", "phase", "shop_money", "provider_money", "verdict", "difference", "orders", "paid", "waiting", "in_flight",
    "kills_planned", "recoveries", "shop_kills", "provider_kills",
}  # fmt: skip


class Page(HTMLParser):
    """The figures, the queues, the rows of the books and the differences of a page."""

    def __init__(self, path):
        super().__init__()
        self.figures, self.tables, self.differences = {}, {}, []
        self.open, self.table, self.path = [], None, path
        with open(path, encoding="utf-8") as file:
            self.feed(file.read())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag in ("meta", "link", "br", "path"):
            return
        self.open.append((tag, attributes))
        if "data-figure" in attributes:
            self.figures.setdefault(attributes["data-figure"], "")
        if tag in ("table", "tbody") and attributes.get("id"):
            self.table = self.tables.setdefault(attributes["id"], [])
        if tag == "tr" and self.table is not None:
            self.table.append([])
        if tag in ("td", "th") and self.table:
            self.table[-1].append("")
        if tag == "li":
            self.differences.append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass
        if tag == "table":
            self.table = None

    def handle_data(self, data):
        for tag, attributes in self.open:
            if "data-figure" in attributes:
                self.figures[attributes["data-figure"]] += data.strip()
        tags = [tag for tag, _ in self.open]
        if self.table and ("td" in tags or "th" in tags):
            self.table[-1][-1] += data.strip()
        if "li" in tags:
            self.differences[-1] += data.strip()

    def count(self, name):
        return int(self.figures[name].replace(",", ""))

    def cents(self, name):
        return int(re.sub("[,.]", "", self.figures[name]))

    def check(self, condition, what):
        if not condition:
            sys.exit(f"{self.path}: {what}: {self.figures}")

    def makes_sense(self):
        self.check(set(self.figures) == FIGURES, "there are other figures than there should be")
        blank = [name for name, text in self.figures.items() if text in ("", "–")]
        self.check(not blank, f"{blank} are blank")
        self.check(self.figures["phase"] in PHASES, "it is in no phase")
        parts = ("shipped", "paid", "waiting", "refused")
        self.check(sum(map(self.count, parts)) == self.count("placed"), "the states do not add up to the placed orders")
        self.check(self.count("placed") <= self.count("orders"), "more orders are placed than wanted")
        self.check(self.count("kills") == self.count("shop_kills") + self.count("provider_kills"), "the kills do not add up")
        difference = abs(self.cents("shop_money") - self.cents("provider_money"))
        self.check(self.cents("difference") == difference, "the difference is none of the two sums")
        if difference:
            self.check(self.figures["verdict"] in ("Not yet", "Not balanced"), "it says balanced, and is not")
        else:
            self.check(self.figures["verdict"] in ("Balanced", "Equal, but see below"), "it says not balanced, and is")
        # Before the first report of a process its queues are not known.
        queues = {row[0]: row[2] for name in ("shop-queues", "provider-queues") for row in self.tables.get(name, [])}
        self.check(sum(int(messages.replace(",", "")) for messages in queues.values()) == self.count("in_flight"), "the queues do not add up")


def printed(path):
    """The books as they were printed: rows of whose, what, orders, money; and what is wrong."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("THE BOOKS"))
    end = next(place for place, line in enumerate(lines) if line.startswith("left over"))
    rows = [[line[:10].strip(), line[10:22].strip(), *line[22:].split()] for line in lines[start + 1 : end]]
    wrong = [line.removeprefix("WRONG: ") for line in lines if line.startswith("WRONG: ")]
    text = "\n".join(lines)
    replayed = int(re.search(r"orders: (\d+) repetitions", text).group(1))
    duplicates = int(re.search(r"(\d+) duplicates dropped", text).group(1))
    kills = sum(map(int, re.search(r"the shop was killed (\d+) times, the provider (\d+) times", text).groups()))
    return rows, wrong, {"replays": replayed, "duplicates": duplicates, "kills": kills}


def main():
    verdict, printed_path, *paths = sys.argv[1:]
    pages = [Page(path) for path in paths]
    for page in pages:
        page.makes_sense()
    for before, page in zip(pages, pages[1:]):
        for name in GROWING:
            page.check(page.count(name) >= before.count(name), f"{name} has gone back from {before.figures[name]}")
    rows, wrong, counts = printed(printed_path)
    last = pages[-1]
    shown = [[whose, what, orders.replace(",", ""), money] for whose, what, orders, money in last.tables["books"][1:]]
    last.check(shown == rows, f"the books are not those that were printed: {shown}, {rows}")
    last.check(len(rows) == 9, "the books have other rows than they should have")
    for name, figure in counts.items():
        last.check(last.count(name) == figure, f"{figure} {name} were printed")
    by_name = {("" if whose else "…") + what: (orders, money) for whose, what, orders, money in rows}
    orders, money = by_name["…paid"]
    last.check(last.differences == wrong, f"the differences are not those that were printed: {last.differences}, {wrong}")
    last.check(last.count("in_flight") == 0, "messages are in flight after the end")
    if verdict == "balanced":
        last.check(not wrong and last.figures["phase"] == "the books balance" and last.figures["verdict"] == "Balanced", "it is not balanced")
        last.check(last.count("shop_paid") == last.count("provider_paid") == int(orders), "other orders were paid than printed")
        last.check(last.figures["shop_money"] == last.figures["provider_money"] == money, "another sum was paid than printed")
        during = [page.figures["phase"] for page in pages[:-1]]
        last.check(during.count("orders come in") >= 2, f"it was not seen at work: {during}")
        seen = sorted({page.count("shipped") for page in pages})
        last.check(len(seen) >= 3, f"nothing has moved: {seen}")
        print(f"seen {len(pages)} times, with {seen} orders shipped; in the end its figures are the printed books")
    else:
        last.check(wrong and last.figures["phase"] == "the books do not balance", "it is balanced")
        print(f"spoilt books are shown as such: {wrong[0]}")


main()
