enum ReportStyle {
    /// The page's style sheet: light and dark by the reader's setting, or by the button's `data-theme`.
    static let sheet = HTML(
        trusted: """
            :root{--page:#f6f7f9;--card:#fff;--ink:#1c2128;--faint:#667080;--line:#e3e7ec;--accent:#2f6fde;
            --good:#1a7f4b;--poor:#b3541e;--broken:#d64545;--soft:#eaf1fd;color-scheme:light}
            @media (prefers-color-scheme:dark){:root:not([data-theme=light]){--page:#0e1116;--card:#161b22;--ink:#e6eaf0;
            --faint:#8d97a5;--line:#262d37;--accent:#6ea8ff;--good:#4cc38a;--poor:#f0a35e;--broken:#ff7b72;
            --soft:#182338;color-scheme:dark}}
            :root[data-theme=dark]{--page:#0e1116;--card:#161b22;--ink:#e6eaf0;--faint:#8d97a5;--line:#262d37;
            --accent:#6ea8ff;--good:#4cc38a;--poor:#f0a35e;--broken:#ff7b72;--soft:#182338;color-scheme:dark}
            *{box-sizing:border-box}
            html{scroll-padding-top:64px}
            body{margin:0;background:var(--page);color:var(--ink);font:14px/1.5 system-ui,-apple-system,"Segoe UI",
            Roboto,"Noto Sans","Liberation Sans",sans-serif}
            header{position:sticky;top:0;z-index:2;background:var(--card);border-bottom:1px solid var(--line)}
            .bar{max-width:1400px;margin:0 auto;padding:10px 24px;display:flex;flex-wrap:wrap;align-items:center;
            gap:8px 14px}
            .brand{color:var(--accent);font-weight:700;letter-spacing:.02em}
            h1{font-size:16px;margin:0;overflow-wrap:anywhere}
            .status{font-size:12px;padding:1px 9px;border-radius:99px;background:var(--soft);color:var(--accent)}
            .status.finished{color:var(--good)}.status.failed{color:var(--broken)}.status.interrupted{color:var(--poor)}
            nav{display:flex;flex-wrap:wrap;gap:2px 12px;flex:1;margin-left:8px}
            nav a{color:var(--faint);text-decoration:none}nav a:hover{color:var(--ink)}
            .control{color:var(--faint);font-size:13px;display:flex;align-items:center;gap:8px}
            input[type=range]{accent-color:var(--accent);width:130px}
            button{border:1px solid var(--line);background:none;color:var(--faint);border-radius:6px;padding:2px 9px;
            font:inherit;cursor:pointer}
            html:not(.js) .scripted{display:none}
            main{max-width:1400px;margin:0 auto;padding:20px 24px 60px}
            h2{font-size:15px;margin:30px 0 10px}
            .overview{display:flex;flex-wrap:wrap;gap:14px;align-items:stretch}
            .heldout,.facts,.chart,.scroll,pre,.legend{background:var(--card);border:1px solid var(--line);
            border-radius:10px}
            .heldout{padding:14px 20px}.heldout p{margin:0}.label,dt,.note,.tick{color:var(--faint)}
            .label{font-size:12px}.figures{font-size:26px;display:flex;gap:10px;align-items:baseline;white-space:nowrap}
            .figures strong{color:var(--good);font-size:36px;line-height:1.25}.arrow{color:var(--faint)}
            .gain{color:var(--good);font-size:13px}
            .facts{margin:0;padding:14px 20px;flex:1 1 420px;display:grid;align-content:center;
            grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:8px 20px}
            dt{font-size:12px}dd{margin:0;overflow-wrap:anywhere}
            .grid-of-charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,380px),1fr));gap:14px}
            .chart{margin:0;padding:10px 12px 4px;min-width:0}
            figcaption{display:flex;gap:10px;align-items:baseline;font-size:13px}
            .name{font-weight:600;overflow-wrap:anywhere}.last{margin-left:auto;font-variant-numeric:tabular-nums}
            .note{font-size:12px}
            svg{display:block;width:100%;height:auto;touch-action:pan-y}
            .grid{stroke:var(--line);stroke-width:1}
            .tick{fill:var(--faint);font-size:10.5px;font-variant-numeric:tabular-nums}
            .raw,.smooth{fill:none;stroke:var(--accent);stroke-linejoin:round;stroke-linecap:round}
            .raw{stroke-width:1.1;opacity:.38}.smooth{stroke-width:2}.dot{fill:var(--accent);opacity:.55}
            .broken{stroke:var(--broken);stroke-width:1.5;opacity:.6}
            .cursor line{stroke:var(--faint);stroke-dasharray:3 3}.cursor circle{fill:var(--accent);stroke:var(--card);
            stroke-width:1.5}
            .phases{display:grid;grid-template-columns:minmax(0,2fr) minmax(180px,1fr);gap:14px}
            .wide svg path{opacity:.88}
            .legend{list-style:none;margin:0;padding:14px 18px;display:grid;gap:5px;align-content:center;font-size:13px}
            .legend li{display:flex;gap:9px;align-items:center}.legend i{width:11px;height:11px;border-radius:3px}
            .legend b{margin-left:auto;font-weight:500;font-variant-numeric:tabular-nums}
            @media (max-width:720px){.phases{grid-template-columns:1fr}header{position:static}}
            .scroll{overflow:auto;max-height:640px;margin-top:10px}
            table{border-collapse:collapse;width:100%}
            th{position:sticky;top:0;background:var(--card);color:var(--faint);font-size:12px;font-weight:500;
            text-align:left;box-shadow:inset 0 -1px var(--line)}
            th,td{padding:7px 14px;vertical-align:top}tr+tr td,tbody+tbody td{border-top:1px solid var(--line)}
            .number{font-variant-numeric:tabular-nums;white-space:nowrap}.good{color:var(--good)}.poor{color:var(--poor)}
            .text{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;
            font:12.5px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
            summary{cursor:pointer}details[open] summary{color:var(--faint);margin-bottom:6px}
            pre{margin:0;padding:14px 18px;overflow:auto;font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,
            "Liberation Mono",monospace}
            #tip{position:fixed;z-index:3;pointer-events:none;background:var(--ink);color:var(--page);border-radius:6px;
            padding:5px 9px;font-size:12px;white-space:pre;font-variant-numeric:tabular-nums}
            @media print{header{position:static}.scripted{display:none}.chart{break-inside:avoid}}
            """)
}
