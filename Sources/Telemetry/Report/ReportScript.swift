enum ReportScript {
    /// Hover values, the smoothing slider, the samples' step slider and the theme button. All text goes in by
    /// `textContent`, never as markup.
    static let text = HTML(
        trusted: """
            "use strict";
            (() => {
            const root = document.documentElement, tip = document.getElementById("tip");
            const data = JSON.parse(document.getElementById("data").textContent);
            const [left, margin, top, bottom] = data.frame, ns = "http://www.w3.org/2000/svg";
            root.classList.add("js");
            const number = v => typeof v === "string" ? v : v === 0 ? "0" :
              Math.abs(v) < 1e-4 || Math.abs(v) >= 1e9 ? v.toExponential(4) : String(+v.toPrecision(6));
            const place = (v, [a, b]) => b > a ? (v - a) / (b - a) : 0.5;
            const px = (c, step) => left + place(step, c.x) * (c.right - left);
            const py = (c, v) => bottom - place(v, c.y) * (bottom - top);
            const smooth = (values, weight) => {
              if (values.length <= 12) return values;
              let average = 0, rest = 1;
              return values.map(v => {
                if (typeof v !== "number") return v;
                average = weight * average + (1 - weight) * v;
                rest *= weight;
                return average / (1 - rest);
              });
            };
            const path = (c, values) => {
              let text = "", open = false;
              values.forEach((v, i) => {
                if (typeof v !== "number") { open = false; return; }
                text += (open ? "L" : "M") + px(c, c.steps[i]).toFixed(1) + " " + py(c, v).toFixed(1);
                open = true;
              });
              return text;
            };
            const nearest = (steps, step) => {
              let low = 0, high = steps.length - 1;
              while (low < high) {
                const middle = (low + high) >> 1;
                if (steps[middle] < step) low = middle + 1; else high = middle;
              }
              return low > 0 && step - steps[low - 1] < steps[low] - step ? low - 1 : low;
            };
            const mark = (parent, name, attributes) => {
              const element = document.createElementNS(ns, name);
              for (const key in attributes) element.setAttribute(key, attributes[key]);
              parent.append(element);
            };
            const hover = (svg, c, show) => {
              const full = svg.viewBox.baseVal.width;
              c.right = full - margin;
              const cursor = svg.querySelector(".cursor");
              const clear = () => { cursor.replaceChildren(); tip.hidden = true; };
              svg.addEventListener("pointerleave", clear);
              svg.addEventListener("pointermove", event => {
                if (!c.steps.length) return;
                const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) / box.width * full;
                const i = nearest(c.steps, c.x[0] + (x - left) / (c.right - left) * (c.x[1] - c.x[0]));
                const at = px(c, c.steps[i]);
                cursor.replaceChildren();
                mark(cursor, "line", {x1: at, x2: at, y1: top, y2: bottom});
                tip.textContent = "step " + c.steps[i] + "\\n" + show(i, cursor, at);
                tip.hidden = false;
                const width = tip.offsetWidth;
                tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 4)) + "px";
                tip.style.top = Math.max(4, event.clientY - tip.offsetHeight - 10) + "px";
              });
            };
            const charts = [...document.querySelectorAll("svg[data-chart]")];
            let weight = 0.6;
            for (const svg of charts) {
              const c = data.charts[svg.dataset.chart];
              hover(svg, c, (i, cursor, at) => {
                const v = c.values[i];
                if (typeof v === "number") mark(cursor, "circle", {cx: at, cy: py(c, v), r: 3.5});
                return number(v) + (weight > 0 ? "\\nsmoothed " + number(smooth(c.values, weight)[i]) : "");
              });
            }
            document.getElementById("smoothing").addEventListener("input", event => {
              weight = +event.target.value;
              for (const svg of charts) {
                const c = data.charts[svg.dataset.chart];
                svg.querySelector(".smooth").setAttribute("d", path(c, smooth(c.values, weight)));
              }
            });
            const stack = document.querySelector("svg[data-phases]");
            if (stack && data.phases) hover(stack, data.phases, i => data.phases.names
              .map((name, k) => [data.phases.shares[i][k], name]).sort((a, b) => b[0] - a[0])
              .map(([share, name]) => (share * 100).toFixed(1).padStart(5) + " %  " + name).join("\\n"));
            const slider = document.getElementById("sample-slider");
            if (slider) {
              const bodies = [...document.querySelectorAll("tbody[data-index]")];
              const show = () => {
                for (const body of bodies) body.hidden = body.dataset.index !== slider.value;
                document.getElementById("sample-step").textContent = bodies[+slider.value].dataset.step;
              };
              slider.addEventListener("input", show);
              show();
            }
            document.getElementById("theme").addEventListener("click", () => {
              const dark = root.dataset.theme ? root.dataset.theme === "dark"
                : matchMedia("(prefers-color-scheme: dark)").matches;
              root.dataset.theme = dark ? "light" : "dark";
            });
            })();
            """)
}
