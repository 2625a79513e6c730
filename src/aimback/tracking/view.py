"""The chart view that the printed link opens: what matters first, on the scale it needs.

By itself MLflow draws every metric in alphabetical order and on linear axes, where misses of 1e-2
and 1e-14 look the same. A saved view of its UI is a tag of the experiment, so it travels with the store.
"""

import json

VIEW = "routes"
TAG = f"mlflow.sharedViewState.{VIEW}"
ONLY_ROUTES = "tags.kind = 'route'"

_LINES = ("loss", "miss")
_BARS = (
    "solved_fraction",
    "miss_median",
    "miss_p90",
    "miss_max",
    "believed_miss_median",
    "steps_to_tolerance_median",
    "simulations",
    "gradients",
    "training_examples",
    "seconds_generate",
    "seconds_train",
    "seconds_solve",
    "break_even_targets",
    "peak_memory_bytes",
)
_SECTION = "routes"


def view_state() -> str:
    """The view as the MLflow UI saves it (3.17): a name and the page's own state as JSON."""
    charts: list[dict[str, object]] = [
        _chart(
            name,
            "LINE",
            f"{name} by step, logarithmic",
            metricKey=name,
            selectedMetricKeys=[name],
            scaleType="log",
            xAxisScaleType="linear",
            xAxisKey="step",
            yAxisKey="metric",
            lineSmoothness=0,
            range={},
            useGlobalXaxisKey=True,
            useGlobalLineSmoothing=True,
        )
        for name in _LINES
    ]
    charts += [_chart(name, "BAR", name, metricKey=name) for name in _BARS]
    charts.append(
        _chart(
            "parallel",
            "PARALLEL",
            "parallel coordinates",
            selectedParams=["task", "route"],
            selectedMetrics=["solved_fraction", "miss_median", "simulations", "seconds_solve"],
            showAllRuns=False,
        )
    )
    section = {"uuid": _SECTION, "name": "Routes", "display": True, "isReordered": True, "deleted": False}
    state = {
        "searchFilter": ONLY_ROUTES,
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": ["attributes.`Source`", "attributes.`Models`", "attributes.`Dataset`"],
        "compareRunCharts": charts,
        "compareRunSections": [{**section, "isGenerated": False}],
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    # The times are of this definition: one state, one tag.
    named = {"name": "routes side by side", "createdAt": 0, "updatedAt": 0, "state": json.dumps(state, sort_keys=True)}
    return json.dumps(named)


def _chart(uuid: str, kind: str, title: str, **settings: object) -> dict[str, object]:
    return {
        "uuid": uuid,
        "type": kind,
        "displayName": title,
        "runsCountToCompare": 10,
        "metricSectionId": _SECTION,
        "deleted": False,
        "isGenerated": False,
        **settings,
    }
