#!/usr/bin/env python3
"""The totals of the demo, computed from its input by a program that shares no code with it.

Usage: totals.py FLIGHTS.ndjson > TOTALS.ndjson
"""
import json
import sys
from collections import defaultdict

aircraft = defaultdict(lambda: {"flights": 0, "distance": 0, "air_time": 0, "missing_air_time": 0})
airports = defaultdict(lambda: {"departures": 0, "arrivals": 0, "dep_delay": 0, "arr_delay": 0})

with open(sys.argv[1], "rb") as lines:
    for line in lines:
        if not line.strip():
            continue
        flight = json.loads(line)
        totals = aircraft[flight.get("tail") or "unknown:" + flight["carrier"]]
        totals["flights"] += 1
        totals["distance"] += flight.get("distance") or 0
        totals["air_time"] += flight.get("air_time") or 0
        totals["missing_air_time"] += flight.get("air_time") is None
        origin, destination = airports[flight["origin"]], airports[flight["dest"]]
        origin["departures"] += 1
        origin["dep_delay"] += flight.get("dep_delay") or 0
        destination["arrivals"] += 1
        destination["arr_delay"] += flight.get("arr_delay") or 0

for kind, totals in (("aircraft", aircraft), ("airport", airports)):
    for key in sorted(totals, key=lambda key: key.encode()):
        print(json.dumps({"kind": kind, "key": key, **totals[key]}, separators=(",", ":"), ensure_ascii=False))
