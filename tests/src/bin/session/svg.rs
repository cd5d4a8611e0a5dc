//! A terminal as an SVG.

use std::fmt::Write as _;

/// A line of a terminal.
pub enum Line {
    /// A prompt, and what was typed behind it.
    Typed(&'static str, String),
    Output(String),
    /// What the picture itself says.
    Comment(&'static str),
    Blank,
}

const COLUMNS: usize = 104;
const COLUMN: f64 = 7.8;
const ROW: usize = 19;
const MARGIN: usize = 16;

/// Follows the reader's choice of light or dark.
const STYLE: &str = "
    text { font: 13px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; }
    rect { fill: #f6f8fa; stroke: #d0d7de; }
    .output { fill: #1f2328; } .typed { fill: #0a3069; font-weight: bold; }
    .prompt { fill: #656d76; } .comment { fill: #116329; font-style: italic; }
    @media (prefers-color-scheme: dark) {
      rect { fill: #0d1117; stroke: #30363d; }
      .output { fill: #d1d7e0; } .typed { fill: #79c0ff; }
      .prompt { fill: #8d96a0; } .comment { fill: #7ee787; }
    }
  ";

pub fn render(title: &str, lines: &[Line]) -> String {
    let rows: Vec<String> = lines.iter().flat_map(rows).collect();
    let width = (COLUMNS as f64 * COLUMN) as usize + 2 * MARGIN;
    let height = rows.len() * ROW + 2 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" xml:space=\"preserve\" role=\"img\">\n  <title>{title}</title>\n  \
         <style>{STYLE}</style>\n  \
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n",
        width - 1,
        height - 1
    );
    for (row, text) in rows.iter().enumerate() {
        let y = MARGIN + row * ROW + ROW * 3 / 4;
        let _ = writeln!(svg, "  <text x=\"{MARGIN}\" y=\"{y}\">{text}</text>");
    }
    svg + "</svg>\n"
}

/// The rows that a line takes, as the content of a text element.
fn rows(line: &Line) -> Vec<String> {
    match line {
        Line::Typed(prompt, text) => vec![span("prompt", prompt) + &span("typed", text)],
        Line::Comment(text) => vec![span("comment", &format!("# {text}"))],
        Line::Blank => vec![String::new()],
        Line::Output(text) => {
            let text: Vec<char> = text.trim_end().chars().collect();
            let parts = text.chunks(COLUMNS);
            parts
                .map(|part| span("output", &part.iter().collect::<String>()))
                .collect()
        }
    }
}

fn span(class: &str, text: &str) -> String {
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    format!("<tspan class=\"{class}\">{text}</tspan>")
}
