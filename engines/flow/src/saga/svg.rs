//! The choreography as a picture: SVG 1.1, from left to right, one file that needs nothing else.
//!
//! Round boxes are facts, square ones reactions. No meaning hangs on colour alone: a failure has a cross and a
//! dashed edge, an end a double border. Colours follow the reader's scheme, light or dark, and the picture brings
//! its own background, so that it is readable where it is put.

use std::fmt::{self, Display, Write};

use super::graph::{Fact, Graph, Made, Step};
use super::layout::{Layout, Size, layout};
use crate::plain::{columns, plain};

/// Of a character of the font at 13 pixels; what is wide takes two.
const CHAR_WIDTH: f64 = 8.0;
const FACT_HEIGHT: f64 = 30.0;
const STEP_HEIGHT: f64 = 38.0;
const COLUMN_GAP: f64 = 56.0;
const MARGIN: f64 = 24.0;
/// Space for the line that explains the signs.
const LEGEND: f64 = 36.0;
const LEGEND_WIDTH: f64 = 560.0;
/// Characters of a name that are shown; the whole name is in the box's title.
const SHOWN_MAX: usize = 40;

const STYLE: &str = "\
.back{fill:#ffffff}.fact{fill:#f6f8fa;stroke:#57606a}.step{fill:#ddf4ff;stroke:#0969da}\
.start{fill:#dafbe1;stroke:#1a7f37}.fail{fill:#ffebe9;stroke:#cf222e;stroke-dasharray:5 3}\
.wrong{stroke:#9a6700;stroke-width:3}.inner{fill:none;stroke:#0969da}\
text{fill:#1f2328;font:13px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;text-anchor:middle}\
.small{font-size:11px}.left{text-anchor:start}.edge{fill:none;stroke:#57606a;stroke-width:1.4}\
.failing{stroke:#cf222e;stroke-dasharray:5 3}.head{fill:#57606a}\
@media (prefers-color-scheme:dark){.back{fill:#0d1117}.fact{fill:#161b22;stroke:#8b949e}\
.step{fill:#0c2d6b;stroke:#58a6ff}.start{fill:#0f3d1e;stroke:#3fb950}.fail{fill:#4a1214;stroke:#ff7b72}\
.wrong{stroke:#d29922}.inner{stroke:#58a6ff}text{fill:#e6edf3}.edge{stroke:#8b949e}.failing{stroke:#ff7b72}\
.head{fill:#8b949e}}";

/// The drawing of a graph as SVG; made by [`Graph::svg`].
#[derive(Debug)]
pub struct Svg<'a>(&'a Graph);

impl Graph {
    /// Draws the choreography as SVG. The same declarations give the same bytes. Names are escaped; the picture
    /// refers to nothing outside and runs nothing.
    pub fn svg(&self) -> Svg<'_> {
        Svg(self)
    }
}

impl Display for Svg<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let graph = self.0;
        let facts = graph.facts.len();
        let boxes: Vec<Drawn> =
            graph.facts.iter().map(fact_box).chain(graph.steps.iter().map(|s| step_box(graph, s))).collect();
        let sizes: Vec<Size> = boxes.iter().map(Drawn::size).collect();
        let mut edges = Vec::new();
        let mut is_failing = Vec::new();
        for (i, step) in graph.steps.iter().enumerate() {
            edges.push((step.fact, facts + i));
            is_failing.push(false);
            for (made, how) in &step.makes {
                edges.push((facts + i, *made));
                is_failing.push(*how == Made::Failing);
            }
        }
        let plan = layout(&sizes, &edges, COLUMN_GAP);

        let width = plan.width.max(LEGEND_WIDTH) + 2.0 * MARGIN;
        let height = plan.height + 2.0 * MARGIN + LEGEND;
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
             height=\"{height:.0}\" role=\"img\" aria-labelledby=\"choreography-title choreography-desc\">"
        )?;
        let names: Vec<&str> = graph.participants.iter().map(|participant| participant.name()).collect();
        writeln!(f, "<title id=\"choreography-title\">Choreography of {}</title>", Xml(&names.join(", ")))?;
        writeln!(f, "<desc id=\"choreography-desc\">{}</desc>", Xml(&description(graph)))?;
        writeln!(f, "<style>{STYLE}</style>")?;
        writeln!(
            f,
            "<defs><marker id=\"choreography-head\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" \
             markerHeight=\"8\" orient=\"auto\"><path class=\"head\" d=\"M0 0L8 4L0 8z\"/></marker></defs>"
        )?;
        writeln!(f, "<rect class=\"back\" width=\"{width:.0}\" height=\"{height:.0}\"/>")?;
        for (i, (from, to)) in edges.iter().enumerate() {
            let failing = if is_failing[i] { " failing" } else { "" };
            let way = way(&plan, i, (*from, sizes[*from]), (*to, sizes[*to]));
            writeln!(
                f,
                "<path class=\"edge{failing}\" marker-end=\"url(#choreography-head)\" d=\"{way}\"/>"
            )?;
        }
        for (drawn, (left, middle)) in boxes.iter().zip(&plan.boxes) {
            drawn.write(f, left + MARGIN, middle + MARGIN)?;
        }
        let legend = height - MARGIN + 4.0;
        writeln!(
            f,
            "<text class=\"small left\" x=\"{MARGIN}\" y=\"{legend:.0}\">round: a fact · square: who reacts · \
             ✗ dashed: a failure · double border: ends the saga</text>"
        )?;
        f.write_str("</svg>\n")
    }
}

/// A box before it has its place.
struct Drawn {
    class: String,
    is_round: bool,
    is_double: bool,
    label: String,
    small: String,
    /// The whole of it, for whoever points at it.
    title: String,
}

fn fact_box(fact: &Fact) -> Drawn {
    let (by, name) = (plain(&fact.by), plain(&fact.event_type));
    let (kind, small) = match fact {
        Fact { started: true, .. } => ("start", format!("a request to {by}")),
        Fact { announced: true, .. } => ("fact", format!("announced by {by}")),
        _ if !fact.is_published() => ("fact wrong", format!("⚠ {by} does not publish it")),
        _ if fact.is_failure() => ("fail", String::new()),
        _ => ("fact", String::new()),
    };
    let is_lonely = fact.consumers.is_empty() && (fact.wants_consumer() || fact.is_failure());
    let small = if is_lonely { "⚠ consumed by nobody".to_owned() } else { small };
    let wrong = if is_lonely { " wrong" } else { "" };
    let cross = if fact.is_failure() { "✗ " } else { "" };
    Drawn {
        class: format!("{kind}{wrong}"),
        is_round: true,
        is_double: false,
        label: format!("{cross}{}", shortened(&name)),
        small: shortened(&small),
        title: format!("{name} of {by}"),
    }
}

fn step_box(graph: &Graph, step: &Step) -> Drawn {
    let name = plain(&step.participant);
    let fact = &graph.facts[step.fact];
    let bound = step.at_most.map_or_else(String::new, |times| format!("at most {times}×"));
    Drawn {
        class: "step".into(),
        is_round: false,
        is_double: step.ends,
        label: shortened(&name),
        small: bound,
        title: format!("{name} reacts to {} of {}", plain(&fact.event_type), plain(&fact.by)),
    }
}

impl Drawn {
    fn size(&self) -> Size {
        let height = if self.is_round { FACT_HEIGHT } else { STEP_HEIGHT };
        let second = if self.small.is_empty() { 0.0 } else { 12.0 };
        let width = (columns(&self.label) as f64).max(columns(&self.small) as f64 * 0.85) * CHAR_WIDTH + 28.0;
        Size { width: width.ceil(), height: height + second }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, left: f64, middle: f64) -> fmt::Result {
        let Size { width, height } = self.size();
        let (top, radius) = (middle - height / 2.0, if self.is_round { 15 } else { 4 });
        writeln!(f, "<g><title>{}</title>", Xml(&self.title))?;
        writeln!(
            f,
            "<rect class=\"{}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             rx=\"{radius}\"/>",
            self.class
        )?;
        if self.is_double {
            writeln!(
                f,
                "<rect class=\"inner\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\"/>",
                left + 3.5,
                top + 3.5,
                width - 7.0,
                height - 7.0
            )?;
        }
        let center = left + width / 2.0;
        let baseline = if self.small.is_empty() { middle + 4.5 } else { middle - 2.0 };
        writeln!(f, "<text x=\"{center:.1}\" y=\"{baseline:.1}\">{}</text>", Xml(&self.label))?;
        if !self.small.is_empty() {
            let baseline = middle + 12.5;
            writeln!(
                f,
                "<text class=\"small\" x=\"{center:.1}\" y=\"{baseline:.1}\">{}</text>",
                Xml(&self.small)
            )?;
        }
        writeln!(f, "</g>")
    }
}

/// An edge's way: from the side of one box to the facing side of the other, through its bends.
fn way(plan: &Layout, edge: usize, from: (usize, Size), to: (usize, Size)) -> String {
    let (leaves, arrives) = if plan.is_back[edge] { (0.0, to.1.width) } else { (from.1.width, 0.0) };
    let side = |node: usize, along: f64| (plan.boxes[node].0 + along, plan.boxes[node].1);
    let points = std::iter::once(side(from.0, leaves))
        .chain(plan.bends[edge].iter().copied())
        .chain([side(to.0, arrives)])
        .map(|(x, y)| (x + MARGIN, y + MARGIN));
    let mut way = String::new();
    let mut last: Option<(f64, f64)> = None;
    for (x, y) in points {
        // Writing to a String can't fail.
        let _ = match last {
            None => write!(way, "M{x:.1} {y:.1}"),
            Some((_, before)) if (before - y).abs() < 0.05 => write!(way, "L{x:.1} {y:.1}"),
            Some((was, before)) => {
                let half = f64::midpoint(was, x);
                write!(way, "C{half:.1} {before:.1} {half:.1} {y:.1} {x:.1} {y:.1}")
            }
        };
        last = Some((x, y));
    }
    way
}

/// The picture in sentences, for those who don't see it.
fn description(graph: &Graph) -> String {
    let mut said = String::new();
    let name = |fact: usize| plain(&graph.facts[fact].event_type);
    for fact in &graph.facts {
        let (by, event_type) = (plain(&fact.by), plain(&fact.event_type));
        let _ = match fact {
            Fact { started: true, .. } => write!(said, "A request to {by} begins with {event_type}. "),
            Fact { announced: true, .. } => write!(said, "{by} announces {event_type}. "),
            _ => Ok(()),
        };
    }
    for step in &graph.steps {
        let list = |failing: bool| {
            let made = step.makes.iter().filter(|(_, how)| (*how == Made::Failing) == failing);
            made.map(|(fact, _)| name(*fact)).collect::<Vec<_>>().join(" or ")
        };
        let (made, failed) = (list(false), list(true));
        let _ = write!(said, "{} reacts to {}", plain(&step.participant), name(step.fact));
        if !made.is_empty() {
            let _ = write!(said, " with {made}");
        }
        if !failed.is_empty() {
            let _ = write!(said, ", or fails with {failed}");
        }
        if let Some(times) = step.at_most {
            let _ = write!(said, ", at most {times} times");
        }
        said.push_str(if step.ends { ", which ends the saga. " } else { ". " });
    }
    said.truncate(said.trim_end().len());
    said
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= SHOWN_MAX {
        return text.to_owned();
    }
    text.chars().take(SHOWN_MAX - 1).chain(['…']).collect()
}

/// Text as it stands in XML: markup escaped, and without what XML 1.0 §2.2 does not allow.
struct Xml<'a>(&'a str);

impl Display for Xml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => f.write_char('\u{fffd}'),
            c if c.is_control() => f.write_char('\u{fffd}'),
            c => f.write_char(c),
        })
    }
}
