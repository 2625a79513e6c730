// Draws each interactive figure when it comes into view, in the colours of the page; until then, in print and
// without scripts, the still figure stands in its place.
(() => {
  "use strict";
  // A browser keeps about sixteen three-dimensional contexts; a figure takes one a panel.
  const KEPT = 3;
  const colours = JSON.parse(document.getElementById("colours").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touched = matchMedia("(pointer: coarse)");
  const drawn = new Set();
  const spatial = [];

  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)).join(",");

  function themed(text) {
    for (const [route, colour] of Object.entries(colours)) {
      const own = ink(`--${route}-line`);
      text = text.replaceAll(colour, own).replaceAll(`rgba(${parts(colour)},`, `rgba(${parts(own)},`);
    }
    return text;
  }

  function template() {
    const axis = { gridcolor: ink("--rule"), linecolor: ink("--rule"), zerolinecolor: ink("--rule"), automargin: true };
    const wall = { ...axis, backgroundcolor: ink("--paper"), showbackground: false, showspikes: false };
    return {
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { color: ink("--ink"), family: "system-ui, sans-serif", size: 12 },
        hoverlabel: { bgcolor: ink("--tint"), bordercolor: ink("--rule"), font: { color: ink("--ink") } },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: ink("--quiet"), activecolor: ink("--ink") },
        xaxis: axis,
        yaxis: axis,
        scene: { xaxis: wall, yaxis: wall, zaxis: wall },
      },
    };
  }

  // Titles are text of the page: they wrap, and can be read aloud and copied.
  function place(live, title) {
    const panel = live.appendChild(document.createElement("div"));
    panel.appendChild(document.createElement("p")).textContent = title ?? "";
    return panel.appendChild(document.createElement("div"));
  }

  async function draw(figure) {
    if (drawn.has(figure)) return;
    drawn.add(figure);
    const live = figure.querySelector(".live");
    const panels = JSON.parse(themed(figure.querySelector("script").textContent));
    figure.classList.add("is-live");
    const places = panels.map(({ layout }) => place(live, layout.title?.text));
    await Promise.all(
      panels.map(({ data, layout }, index) => {
        // A finger that scrolls past a flat figure shall not enlarge it.
        const drag = touched.matches && !layout.scene ? { dragmode: false } : {};
        const own = { title: undefined, margin: { ...layout.margin, t: 8 }, template: template() };
        return Plotly.newPlot(places[index], data, { ...layout, ...drag, ...own }, {
          responsive: true,
          displayModeBar: touched.matches ? false : "hover",
          displaylogo: false,
          scrollZoom: false,
          modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "resetCameraLastSave3d", "tableRotation"],
        });
      }),
    );
    if (panels[0].frames) slide(live, places, panels);
    if ("webgl" in figure.dataset) {
      link(places);
      spatial.push(figure);
      if (spatial.length > KEPT) wipe(spatial[0]);
    }
  }

  // A figure with frames has a slider that all of its panels follow.
  function slide(live, places, panels) {
    const { frames } = panels[0];
    const row = document.createElement("label");
    row.className = "sweep-slider";
    const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: frames.length - 1, step: 1 });
    const said = document.createElement("output");
    row.append("move the target ", slider, said);
    live.before(row);
    const turn = () => {
      const at = Number(slider.value);
      said.textContent = frames[at].name;
      slider.setAttribute("aria-valuetext", frames[at].name);
      panels.forEach(({ frames: own, layout }, index) => {
        const place = places[index];
        const still = place.data.slice(own[at].data.length);
        place.previousElementSibling.textContent = own[at].title ?? layout.title?.text ?? "";
        Plotly.react(place, [...own[at].data, ...still], place.layout);
      });
    };
    slider.value = Math.floor(frames.length / 2);
    slider.addEventListener("input", turn);
    turn();
  }

  function wipe(figure) {
    drawn.delete(figure);
    if (spatial.includes(figure)) spatial.splice(spatial.indexOf(figure), 1);
    for (const canvas of figure.querySelectorAll(".live canvas")) {
      const context = canvas.getContext("webgl");
      if (context) context.getExtension("WEBGL_lose_context")?.loseContext();
    }
    for (const place of figure.querySelectorAll(".js-plotly-plot")) Plotly.purge(place);
    figure.querySelector(".live").replaceChildren();
    figure.querySelector(".sweep-slider")?.remove();
    figure.classList.remove("is-live");
  }

  // Who turns one surface turns all of its figure.
  function link(places) {
    let turning = false;
    for (const place of places) {
      const turn = async (change) => {
        const camera = change["scene.camera"];
        if (!camera || turning) return;
        turning = true;
        await Promise.all(
          places.filter((other) => other !== place).map((other) => Plotly.relayout(other, { "scene.camera": camera })),
        );
        turning = false;
      };
      place.on("plotly_relayouting", turn);
      place.on("plotly_relayout", turn);
    }
  }

  const figures = [...document.querySelectorAll("figure[data-live]")];
  const watch = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
    { rootMargin: "200px 0px" },
  );
  figures.forEach((figure) => watch.observe(figure));
  dark.addEventListener("change", () => {
    for (const figure of [...drawn]) wipe(figure);
    // Observing anew reports what is in view.
    for (const figure of figures) {
      watch.unobserve(figure);
      watch.observe(figure);
    }
  });
  // A claim that a link names is unfolded.
  function unfold() {
    const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let one = named?.closest("details"); one; one = one.parentElement.closest("details")) one.open = true;
    if (named) named.scrollIntoView();
  }
  addEventListener("hashchange", unfold);
  unfold();

  const yours = document.getElementById("yours");
  if (yours) calculate(yours, JSON.parse(document.getElementById("demands").textContent));

  // From what was measured here to a simulator of other speed; `calculator.py` says what the numbers are.
  function calculate(section, demands) {
    const form = section.querySelector("form");
    const [said, curve] = [section.querySelector(".choice"), section.querySelector(".curve")];
    const say = (value) => Number(value.toPrecision(3)).toString();
    const count = (value) => Number(value.toPrecision(2)).toLocaleString("en");
    const span = (seconds) => {
      const unit = [["years", 31557600], ["days", 86400], ["h", 3600], ["min", 60], ["s", 1]].find(([, size]) => seconds >= 2 * size);
      return unit ? `${say(seconds / unit[1])} ${unit[0]}` : `${say(1000 * seconds)} ms`;
    };
    const choose = () => {
      const { unit, tolerance, factors, controls } = demands[form.task.value];
      form.controls.value = controls;
      form.tolerance.replaceChildren(
        ...factors.map((factor, index) => new Option(`${factor === 1 ? "" : `${factor} × `}${say(tolerance)} ${unit}`, index, factor === 1, factor === 1)),
      );
    };
    const work = () => {
      if (!form.checkValidity()) {
        said.textContent = "Each of these must be a number above 0.";
        return;
      }
      const seconds = Number(form.seconds.value);
      const targets = Number(form.targets.value);
      const each = form.derivatives.checked ? 2 : 1 + Number(form.controls.value);
      const routes = Object.entries(demands[form.task.value].routes).map(([name, route]) => {
        const cost = seconds * (route.differentiated ? each : 1);
        const fixed = route.prepared * cost + route.seconds_train;
        const further = route.each * cost + route.seconds_each;
        return { name, total: (many) => fixed + many * further, solved: route.solved[form.tolerance.value] };
      });
      const most = Math.max(...routes.map(({ solved }) => solved));
      const able = routes.filter(({ solved }) => most > 0 && most - solved < 0.01);
      const best = (many) => able.reduce((one, other) => (other.total(many) < one.total(many) ? other : one));
      const counts = Array.from({ length: 121 }, (_, index) => 10 ** (index / 20));
      if (able.length === 0) said.textContent = "No route solves a target within this tolerance.";
      else {
        const turn = counts.find((many) => many > targets && best(many).name !== best(targets).name);
        const share = `it solves ${say(100 * best(targets).solved)} % in ${span(best(targets).total(targets))}`;
        const later = turn ? ` From about ${count(turn)} targets on, ${best(turn).name}.` : "";
        const cheaper = routes
          .filter((one) => !able.includes(one) && one.solved > 0 && one.total(targets) < best(targets).total(targets))
          .map(({ name, solved, total }) => ` ${name} would solve ${say(100 * solved)} %, in ${span(total(targets))}.`);
        said.textContent = `Choose ${best(targets).name}: ${share}.${later}${cheaper.join("")}`;
      }
      const lines = routes.map(({ name, total, solved }) => ({
        x: counts,
        y: counts.map(total),
        mode: "lines",
        name,
        line: { color: ink(`--${name}-line`), width: 2.5, dash: able.some((one) => one.name === name) ? "solid" : "dot" },
        hovertemplate: `${name}: %{y:.3g} s for %{x:.3s} targets, ${say(100 * solved)} % solved<extra></extra>`,
      }));
      const mark = { type: "line", x0: targets, x1: targets, y0: 0, y1: 1, yref: "paper", line: { color: ink("--quiet"), dash: "dot", width: 1 } };
      const axis = (text) => ({ type: "log", title: { text }, exponentformat: "power", dtick: 1 });
      const layout = {
        xaxis: axis("targets"), yaxis: { ...axis("seconds in all"), dtick: undefined, nticks: 7 }, shapes: [mark],
        margin: { l: 64, r: 12, t: 8, b: 44 }, showlegend: true, legend: { orientation: "h", y: 1.1 }, template: template(),
      };
      Plotly.react(curve, lines, layout, { responsive: true, displayModeBar: false });
    };
    form.task.addEventListener("change", choose);
    form.addEventListener("input", work);
    form.addEventListener("submit", (event) => event.preventDefault());
    dark.addEventListener("change", work);
    section.hidden = false;
    choose();
    work();
  }
})();
