//! The plot: how long sealing and opening 256 bytes take, as bars on a logarithmic scale. Text is text, and both colour
//! schemes have their colours.

use std::fmt::Write as _;

use crate::bare::{BARE_OPEN, BARE_SEAL};
use crate::messages::{OPEN, OPEN_IN_PLACE, OPEN_UNKNOWN, SEAL, SEAL_INTO};
use crate::report::Table;

/// The column of the table that is drawn: 256 B.
const COLUMN: usize = 1;

const WIDTH: f64 = 720.0;
/// Where the bars begin and end.
const LEFT: f64 = 250.0;
const RIGHT: f64 = 640.0;
const TOP: f64 = 60.0;
const BAR: f64 = 11.0;
const ROW: f64 = 34.0;

/// A label and the contestants that seal and open under it.
pub(crate) type Row = (String, Option<&'static str>, &'static str);

fn rows() -> Vec<Row> {
    let mut rows = vec![
        ("bare AES-256-GCM, in place".to_owned(), Some(BARE_SEAL), BARE_OPEN),
        ("strongroom, in place".to_owned(), Some(SEAL_INTO), OPEN_IN_PLACE),
        ("strongroom, new buffer".to_owned(), Some(SEAL), OPEN),
        ("strongroom, unknown writer".to_owned(), None, OPEN_UNKNOWN),
    ];
    rows.extend(crate::peers::rows());
    rows
}

/// Decades from 100 ns.
fn x(nanos: f64, decades: f64) -> f64 {
    LEFT + (nanos.max(100.0).log10() - 2.0) / decades * (RIGHT - LEFT)
}

fn nanos_as_text(nanos: f64) -> String {
    if nanos < 10_000.0 { format!("{nanos:.0} ns") } else { format!("{:.0} µs", nanos / 1e3) }
}

fn bar(out: &mut String, class: &str, y: f64, nanos: f64, decades: f64) {
    let end = x(nanos, decades);
    let (width, text, at) = (end - LEFT, nanos_as_text(nanos), end + 4.0);
    writeln!(out, r#"<rect class="{class}" x="{LEFT}" y="{y:.0}" width="{width:.1}" height="{BAR}"/>"#).unwrap();
    writeln!(out, r#"<text class="small" x="{at:.1}" y="{:.0}">{text}</text>"#, y + BAR - 2.0).unwrap();
}

fn axis(out: &mut String, bottom: f64, decades: f64) {
    let mut nanos = 100.0;
    while x(nanos, decades) <= RIGHT + 0.5 {
        let at = x(nanos, decades);
        writeln!(out, r#"<path class="grid" d="M{at:.1} {TOP}V{bottom:.0}"/>"#).unwrap();
        let label = if nanos < 1e3 {
            "100 ns".to_owned()
        } else if nanos < 1e6 {
            format!("{:.0} µs", nanos / 1e3)
        } else {
            format!("{:.0} ms", nanos / 1e6)
        };
        writeln!(
            out,
            r#"<text class="small" x="{at:.1}" y="{:.0}" text-anchor="middle">{label}</text>"#,
            bottom + 16.0
        )
        .unwrap();
        nanos *= 10.0;
    }
}

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}.small{font-size:11px}\
    .page{fill:#fff}.grid{stroke:#d0d7de}.seal{fill:#0969da}.open{fill:#bf8700}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117}.grid{stroke:#30363d}\
    .seal{fill:#4493f8}.open{fill:#d29922}}";

/// The plot of `table` as an SVG document.
pub(crate) fn svg(table: &Table) -> String {
    let measured =
        |(label, seal, open): Row| (label, seal.map(|seal| table.nanos(seal, COLUMN)), table.nanos(open, COLUMN));
    let rows: Vec<(String, Option<f64>, f64)> = rows().into_iter().map(measured).collect();
    let most = rows.iter().map(|(_, seal, open)| open.max(seal.unwrap_or(0.0))).fold(1e3, f64::max);
    let decades = (most.log10() - 2.0).ceil();
    let bottom = rows.iter().fold(TOP, |y, _| y + ROW);
    let height = bottom + 28.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>Time to seal and to open 256 bytes with the key cached</title>\n<style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\" rx=\"6\"/>\n\
         <text x=\"14\" y=\"24\">Time to seal and to open 256 bytes, key cached; logarithmic, less is better</text>\n\
         <rect class=\"seal\" x=\"{LEFT}\" y=\"36\" width=\"11\" height=\"11\"/>\
         <text class=\"small\" x=\"266\" y=\"46\">seal</text>\n\
         <rect class=\"open\" x=\"310\" y=\"36\" width=\"11\" height=\"11\"/>\
         <text class=\"small\" x=\"326\" y=\"46\">open</text>\n"
    );
    axis(&mut out, bottom, decades);
    let mut y = TOP + 4.0;
    for (label, seal, open) in rows {
        let (at, middle) = (LEFT - 8.0, y + BAR + 4.0);
        writeln!(out, r#"<text x="{at}" y="{middle:.0}" text-anchor="end">{label}</text>"#).unwrap();
        if let Some(seal) = seal {
            bar(&mut out, "seal", y, seal, decades);
        }
        bar(&mut out, "open", y + BAR + 1.0, open, decades);
        y += ROW;
    }
    out.push_str("</svg>\n");
    out
}
