"""The view that the printed link opens: what matters first, on the scale it needs.

By itself MLflow draws every metric in alphabetical order and on linear axes, where misses of 1e-2
and 1e-14 look the same. A saved view of its UI is a tag of the experiment, so it travels with the store.
"""

import json

VIEW = "routes"
TAG = f"mlflow.sharedViewState.{VIEW}"
# What was published last; a run of the claims has no charts.
NEWEST = "tags.newest = 'true' AND tags.kind != 'diagnosis'"

# Bars have no logarithmic axis, so runs hold the logarithms of these, under `name_logarithm`.
LOGARITHMIC = (
    *("miss_median", "miss_p90", "miss_max", "believed_miss_median"),
    *("seconds_generate", "seconds_train", "seconds_solve"),
)
_LINES = ("loss", "miss", "train_loss", "validation_loss")
_SECTIONS = {
    "Outcome": ("solved_fraction", "miss", "loss", *LOGARITHMIC[:4], "steps_to_tolerance_median"),
    "Cost": (
        *("simulations", "gradients", "training_examples", *LOGARITHMIC[4:]),
        *("break_even_targets", "peak_memory_bytes"),
    ),
    "Training": ("train_loss", "validation_loss", "validation_mse", "epochs"),
}
_TABLE = "Side by side"
_REST = "Model metrics"  # where MLflow puts what no other section shows


def name_logarithm(metric: str) -> str:
    return f"{metric}_log10"


# A cell cuts a number at its end, and with it the exponent of a small one.
_COLUMNS = (
    *("solved_fraction", name_logarithm("miss_median"), "simulations"),
    *("training_examples", "seconds_train", "seconds_solve"),
)


def view_state() -> str:
    """The view as the MLflow UI saves it (3.17): a name and the page's own state as JSON."""
    charts = [_chart(section, name) for section, names in _SECTIONS.items() for name in names]
    # Of two routes, parallel coordinates are two lines that nobody sees.
    table = {
        "chartName": "All metrics, side by side",
        "compareGroups": [_REST],
        "showChangeFromBaseline": False,
        "showDifferencesOnly": True,
        "baselineColumnUuid": "",
    }
    charts.append(_card(_TABLE, "table", "DIFFERENCE", **table))
    columns = [f"metrics.`{name}`" for name in _COLUMNS]
    state = {
        "searchFilter": NEWEST,
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": dict.fromkeys(columns, 140),
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": charts,
        "compareRunSections": [
            *(_section(name) for name in _SECTIONS),
            _section(_TABLE, columns=1),
            _section(_REST, display=False),
        ],
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    # The times are of this definition: one state, one tag.
    named = {"name": "routes side by side", "createdAt": 0, "updatedAt": 0, "state": json.dumps(state, sort_keys=True)}
    return json.dumps(named)


def _section(name: str, display: bool = True, columns: int = 3) -> dict[str, object]:
    shape = {"uuid": name, "name": name, "display": display, "columns": columns}
    return {**shape, "isReordered": True, "deleted": False, "isGenerated": False}


def _chart(section: str, name: str) -> dict[str, object]:
    if name not in _LINES:
        shown = name_logarithm(name) if name in LOGARITHMIC else name
        return _card(section, name, "BAR", metricKey=shown)
    scales = {"scaleType": "log", "xAxisScaleType": "linear", "xAxisKey": "step", "yAxisKey": "metric", "range": {}}
    smooth = {"lineSmoothness": 0, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True}
    return _card(section, name, "LINE", metricKey=name, selectedMetricKeys=[name], **scales, **smooth)


def _card(section: str, uuid: str, kind: str, **settings: object) -> dict[str, object]:
    return {
        "uuid": uuid,
        "type": kind,
        "runsCountToCompare": 10,
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        **settings,
    }
