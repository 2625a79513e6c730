// Draws each interactive figure when it comes into view, in the colours of the page; until then, in print and
// without scripts, the still figure stands in its place.
(() => {
  "use strict";
  // A browser keeps about sixteen three-dimensional contexts; a figure takes one a panel.
  const KEPT = 3;
  const colours = JSON.parse(document.getElementById("colours").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touched = matchMedia("(pointer: coarse)");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
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
    if ("webgl" in figure.dataset) {
      link(places);
      spatial.push(figure);
      if (spatial.length > KEPT) wipe(spatial[0]);
    }
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
  if (!calm.matches) for (const moving of document.querySelectorAll("details.moving")) moving.open = true;
})();
