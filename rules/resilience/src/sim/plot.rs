//! Curves as a picture: SVG 1.1, one file that needs nothing else.
//!
//! No meaning hangs on colour alone: curves also differ in their dashes, and the legend shows both. Colours follow
//! the reader's scheme, light or dark, and the picture brings its own background.

use std::fmt::{self, Display};
use std::time::Duration;

const WIDTH: f64 = 880.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 16.0;
/// The title, and the first panel's title and legend.
const TOP: f64 = 56.0;
const PANEL: f64 = 190.0;
/// Between two panels: the lower one's title and legend.
const GAP: f64 = 56.0;
const BOTTOM: f64 = 36.0;
/// More curves than this in a panel share their looks.
const LOOKS: usize = 6;

const STYLE: &str = "\
.back{fill:#ffffff}.frame{fill:none;stroke:#d0d7de}.grid{stroke:#eaeef2}\
text{fill:#1f2328;font:12px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}\
.title{font-size:14px}.right{text-anchor:end}.middle{text-anchor:middle}.curve{fill:none;stroke-width:1.6}\
.c0{stroke:#57606a;stroke-dasharray:6 3}.c1{stroke:#1a7f37}.c2{stroke:#cf222e;stroke-dasharray:2 2}\
.c3{stroke:#0969da;stroke-dasharray:9 3 2 3}.c4{stroke:#9a6700;stroke-dasharray:4 4}.c5{stroke:#8250df}\
@media (prefers-color-scheme:dark){.back{fill:#0d1117}.frame{stroke:#30363d}.grid{stroke:#21262d}\
text{fill:#e6edf3}.c0{stroke:#8b949e}.c1{stroke:#3fb950}.c2{stroke:#ff7b72}.c3{stroke:#58a6ff}\
.c4{stroke:#d29922}.c5{stroke:#bc8cff}}";

/// Panels of curves over one time. `Display` writes the SVG; the same curves give the same bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    title: String,
    step: Duration,
    panels: Vec<Panel>,
}

#[derive(Debug, Clone, PartialEq)]
struct Panel {
    label: String,
    series: Vec<(String, Vec<f64>)>,
}

impl Plot {
    /// A plot of values that are `step` apart.
    pub fn new(title: impl Into<String>, step: Duration) -> Self {
        Plot { title: title.into(), step, panels: Vec::new() }
    }

    /// Begins a panel, below the others; `label` says what its values are.
    #[must_use]
    pub fn panel(mut self, label: impl Into<String>) -> Self {
        self.panels.push(Panel { label: label.into(), series: Vec::new() });
        self
    }

    /// Adds a curve to the last panel. What is no finite number is drawn as 0.
    #[must_use]
    pub fn series(mut self, name: impl Into<String>, values: Vec<f64>) -> Self {
        if let Some(panel) = self.panels.last_mut() {
            panel.series.push((name.into(), values));
        }
        self
    }
}

impl Display for Plot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let panels = self.panels.len() as f64;
        let height = TOP + panels * PANEL + (panels - 1.0).max(0.0) * GAP + BOTTOM;
        let steps = self.panels.iter().flat_map(|panel| &panel.series).map(|(_, values)| values.len());
        let seconds = steps.max().unwrap_or(0) as f64 * self.step.as_secs_f64();
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" width=\"{WIDTH:.0}\" \
             height=\"{height:.0}\" role=\"img\" aria-labelledby=\"plot-title\">"
        )?;
        writeln!(f, "<title id=\"plot-title\">{}</title>", Xml(&self.title))?;
        writeln!(f, "<style>{STYLE}</style>")?;
        writeln!(f, "<rect class=\"back\" width=\"{WIDTH:.0}\" height=\"{height:.0}\"/>")?;
        writeln!(f, "<text class=\"title\" x=\"{LEFT:.0}\" y=\"18\">{}</text>", Xml(&self.title))?;
        for (number, panel) in self.panels.iter().enumerate() {
            let top = TOP + number as f64 * (PANEL + GAP);
            panel.write(f, top, seconds, self.step)?;
        }
        writeln!(
            f,
            "<text class=\"middle\" x=\"{:.0}\" y=\"{:.0}\">seconds</text>",
            WIDTH / 2.0,
            height - 4.0
        )?;
        f.write_str("</svg>\n")
    }
}

impl Panel {
    fn write(&self, f: &mut fmt::Formatter<'_>, top: f64, seconds: f64, step: Duration) -> fmt::Result {
        let (width, bottom) = (WIDTH - LEFT - RIGHT, top + PANEL);
        let highest =
            self.series.iter().flat_map(|(_, values)| values).copied().map(finite).fold(0.0, f64::max);
        let highest = round_up(highest, &VALUES);
        let y = |value: f64| bottom - value / highest * PANEL;
        let x = |second: f64| LEFT + if seconds > 0.0 { second / seconds * width } else { 0.0 };
        for quarter in 0..=4 {
            let value = readable(highest * f64::from(quarter) / 4.0);
            let (at, right) = (y(value), LEFT + width);
            writeln!(f, "<path class=\"grid\" d=\"M{LEFT:.1} {at:.1}H{right:.1}\"/>")?;
            writeln!(
                f,
                "<text class=\"right\" x=\"{:.0}\" y=\"{:.1}\">{value}</text>",
                LEFT - 6.0,
                at + 4.0
            )?;
        }
        let between = round_up(seconds / 10.0, &TIMES);
        let ticks = (seconds / between).floor() as u32;
        for tick in 0..=ticks {
            let tick = readable(f64::from(tick) * between);
            let at = x(tick);
            writeln!(f, "<path class=\"grid\" d=\"M{at:.1} {top:.1}V{bottom:.1}\"/>")?;
            writeln!(f, "<text class=\"middle\" x=\"{at:.1}\" y=\"{:.0}\">{tick}</text>", bottom + 15.0)?;
        }
        writeln!(
            f,
            "<rect class=\"frame\" x=\"{LEFT:.0}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{PANEL:.0}\"/>"
        )?;
        writeln!(f, "<text x=\"{LEFT:.0}\" y=\"{:.1}\">{}</text>", top - 8.0, Xml(&self.label))?;
        let mut legend = LEFT + width;
        for (look, (name, _)) in self.series.iter().enumerate().rev() {
            legend -= name.chars().count() as f64 * 7.4 + 40.0;
            let (from, to, at) = (legend, legend + 24.0, top - 12.0);
            let look = look % LOOKS;
            writeln!(f, "<path class=\"curve c{look}\" d=\"M{from:.1} {at:.1}H{to:.1}\"/>")?;
            writeln!(f, "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", to + 4.0, top - 8.0, Xml(name))?;
        }
        for (look, (name, values)) in self.series.iter().enumerate() {
            write!(f, "<path class=\"curve c{}\" d=\"", look % LOOKS)?;
            for (number, value) in values.iter().enumerate() {
                let letter = if number == 0 { 'M' } else { 'L' };
                let second = number as f64 * step.as_secs_f64();
                write!(f, "{letter}{:.1} {:.1}", x(second), y(finite(*value)))?;
            }
            writeln!(f, "\"><title>{}</title></path>", Xml(name))?;
        }
        Ok(())
    }
}

fn finite(value: f64) -> f64 {
    if value.is_finite() { value.max(0.0) } else { 0.0 }
}

/// Without the noise of binary fractions.
fn readable(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// Ends of an axis whose quarters are readable.
const VALUES: [f64; 10] = [1.0, 1.2, 1.6, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
/// Distances of marks on the axis of time.
const TIMES: [f64; 4] = [1.0, 2.0, 5.0, 10.0];

/// The next of these steps, times a power of ten. 1 for nothing.
fn round_up(value: f64, steps: &[f64]) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    steps.iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(power * 10.0)
}

/// Text as XML has it.
struct Xml<'a>(&'a str);

impl Display for Xml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                // Not allowed in XML 1.0, whatever they stand for.
                c if c.is_control() => f.write_str("\u{fffd}")?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_is_whole_and_its_names_are_text() {
        let plot = Plot::new("<a> & b", Duration::from_millis(100))
            .panel("\"calls\"")
            .series("<script>", vec![0.0, 10.0, f64::NAN, f64::INFINITY])
            .panel("nothing");
        let svg = plot.to_string();
        assert_eq!(svg, plot.to_string());
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("&lt;script&gt;") && svg.contains("&lt;a&gt; &amp; b"), "{svg}");
        assert!(!svg.contains("<script>") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(svg.matches("class=\"frame\"").count(), 2);
    }

    #[test]
    fn an_axis_ends_at_a_round_number_not_far_above() {
        for (value, expected) in
            [(0.0, 1.0), (1.0, 1.0), (3.0, 3.0), (199.0, 200.0), (2_037.0, 3_000.0), (0.04, 0.04)]
        {
            assert!((round_up(value, &VALUES) - expected).abs() < 1e-9, "{value}");
        }
        // ten marks or fewer, at times one would name
        assert!((round_up(3.0, &TIMES) - 5.0).abs() < 1e-9);
        assert_eq!(round_up(f64::NAN, &VALUES), 1.0);
    }
}
