//! The table as a drawing: one group of bars per row, on a logarithmic scale
//! around the ratio 1.

use std::fmt::Write;

use crate::report::Report;

const COLOURS: [&str; 6] = [
    "#2a6fbb", "#8fb8de", "#d9822b", "#5b9e48", "#8a5bb5", "#777777",
];
const LEFT: f64 = 170.0;
const WIDTH: f64 = 640.0;
const BAR: f64 = 7.0;
/// Ratios at the ends of the scale.
const MIN: f64 = 0.1;
const MAX: f64 = 100.0;

fn x(ratio: f64) -> f64 {
    let share = (ratio.clamp(MIN, MAX) / MIN).ln() / (MAX / MIN).ln();
    LEFT + share * WIDTH
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A whole SVG document.
pub fn svg(report: &Report) -> String {
    let targets: Vec<&String> = report.others().collect();
    let group = BAR * targets.len() as f64 + 6.0;
    let top = 50.0;
    let height = top + group * report.rows.len() as f64 + 20.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"10\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        LEFT + WIDTH + 30.0
    );
    for (i, target) in targets.iter().enumerate() {
        let colour = COLOURS.get(i % COLOURS.len()).unwrap_or(&"black");
        let at = LEFT + 110.0 * i as f64;
        let _ = writeln!(
            out,
            "<rect x=\"{at}\" y=\"8\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"17\">{}</text>",
            at + 14.0,
            escape(target)
        );
    }
    for ratio in [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0] {
        let (at, width) = (x(ratio), if ratio == 1.0 { 1.5 } else { 0.3 });
        let _ = writeln!(
            out,
            "<line x1=\"{at:.1}\" y1=\"{}\" x2=\"{at:.1}\" y2=\"{height}\" stroke=\"black\" \
             stroke-width=\"{width}\"/><text x=\"{at:.1}\" y=\"40\" \
             text-anchor=\"middle\">{ratio}</text>",
            top - 5.0
        );
    }
    for (n, row) in report.rows.iter().enumerate() {
        let y = top + group * n as f64;
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}{}</text>",
            LEFT - 6.0,
            y + group / 2.0,
            escape(row.name),
            if row.noisy { " (noisy)" } else { "" }
        );
        for (i, target) in targets.iter().enumerate() {
            let Some(ratio) = row.cell(target).and_then(|cell| cell.ratio) else {
                continue;
            };
            let (from, to) = (x(ratio).min(x(1.0)), x(ratio).max(x(1.0)));
            let _ = writeln!(
                out,
                "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\">\
                 <title>{} {ratio:.2}</title></rect>",
                y + BAR * i as f64,
                (to - from).max(1.0),
                BAR - 1.0,
                COLOURS.get(i % COLOURS.len()).unwrap_or(&"black"),
                escape(target)
            );
        }
    }
    out.push_str("</svg>\n");
    out
}
