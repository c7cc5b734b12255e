//! Charts as SVG: bars with their spread, and lines on linear or logarithmic axes. Colours are Okabe and Ito's, which the colour-blind
//! can tell apart; every line has a shape of its own as well, so that a print in grey can be read. It knows figures and names only.

use std::fmt::Write as _;

use super::statistics::Spread;
use super::tables::figure;

/// Okabe and Ito, "Color Universal Design" (2008), without yellow, which is too light on white.
const COLOURS: [&str; 7] = ["#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
/// What is not ours.
const GREY: &str = "#9aa5b1";
/// What is ours.
const OURS: &str = "#0072B2";
/// Marked by the audit.
const WRONG: &str = "#D55E00";

const WIDTH: f64 = 860.0;
const LABEL_WIDTH: f64 = 375.0;
const FIGURE_WIDTH: f64 = 150.0;
const BAR_HEIGHT: f64 = 18.0;
const BAR_STEP: f64 = 27.0;
const TOP: f64 = 46.0;

/// A bar.
pub struct Bar {
    /// Whose.
    pub label: String,
    /// Its length, and the whisker's.
    pub spread: Spread,
    /// How it is filled.
    pub fill: Fill,
}

/// Whose bar it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Tollgate's.
    Ours,
    /// Another's.
    Theirs,
    /// One that has lost or doubled messages: hatched.
    Wrong,
}

/// A line.
pub struct Line {
    /// Whose.
    pub label: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// How an axis counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By powers of ten; 0 lies below the lowest.
    Logarithmic,
}

/// An axis.
pub struct Axis<'a> {
    /// What it counts.
    pub title: &'a str,
    /// How.
    pub scale: Scale,
}

/// Text as XML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn open(title: &str, height: f64) -> String {
    let title = escape(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"{title}\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n<title>{title}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <defs><pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
         patternTransform=\"rotate(45)\"><rect width=\"6\" height=\"6\" fill=\"#ffffff\"/>\
         <rect width=\"3\" height=\"6\" fill=\"{WRONG}\"/></pattern></defs>\n\
         <text x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"600\">{title}</text>\n"
    )
}

/// Horizontal bars; the thin line on each is its spread.
#[expect(clippy::cast_precision_loss, reason = "there are few bars")]
pub fn bars(title: &str, bars: &[Bar]) -> String {
    let height = TOP + BAR_STEP * bars.len() as f64 + 10.0;
    let mut svg = open(title, height);
    let most = bars.iter().map(|bar| bar.spread.max).filter(|max| max.is_finite()).fold(0.0, f64::max);
    let room = WIDTH - LABEL_WIDTH - FIGURE_WIDTH;
    let at = |value: f64| if most > 0.0 { value / most * room } else { 0.0 };
    for (place, Bar { label, spread, fill }) in bars.iter().enumerate() {
        let y = TOP + BAR_STEP * place as f64;
        let middle = y + BAR_HEIGHT / 2.0;
        let (colour, weight) = match fill {
            Fill::Ours => (OURS, "600"),
            Fill::Theirs => (GREY, "400"),
            Fill::Wrong => ("url(#hatch)", "400"),
        };
        let baseline = middle + 4.5;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{baseline:.1}\" text-anchor=\"end\" font-weight=\"{weight}\">{}</text>",
            LABEL_WIDTH - 8.0,
            escape(label)
        );
        if !spread.median.is_finite() {
            let _ = writeln!(
                svg,
                "<text x=\"{LABEL_WIDTH}\" y=\"{baseline:.1}\" fill=\"#555\">not measured</text>"
            );
            continue;
        }
        let _ = writeln!(
            svg,
            "<rect x=\"{LABEL_WIDTH}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\" fill=\"{colour}\" \
             stroke=\"#333\" stroke-width=\"0.5\"/>",
            at(spread.median).max(0.5)
        );
        let (from, to) = (LABEL_WIDTH + at(spread.min), LABEL_WIDTH + at(spread.max));
        if to - from > 1.0 {
            let (high, low) = (middle - 4.0, middle + 4.0);
            let _ = writeln!(
                svg,
                "<path d=\"M{from:.1} {middle:.1}H{to:.1}M{from:.1} {high:.1}V{low:.1}M{to:.1} {high:.1}V{low:.1}\" \
                 stroke=\"#111\" stroke-width=\"1.3\" fill=\"none\"/>"
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{baseline:.1}\">{}</text>",
            to.max(LABEL_WIDTH) + 7.0,
            figure(spread.median)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

const LEFT: f64 = 78.0;
const RIGHT: f64 = 22.0;
const PLOT_HEIGHT: f64 = 280.0;
const LEGEND_STEP: f64 = 21.0;
const LEGEND_COLUMNS: usize = 2;
const MARKER: f64 = 4.5;
/// A line of more points is a curve: its markers would hide it.
const MARKED_POINTS_MAX: usize = 40;
/// Marks on an even axis.
const EVEN_TICKS: u32 = 5;

/// An axis with its ends.
struct Ruler {
    scale: Scale,
    from: f64,
    to: f64,
    /// Whether something lies at 0, below a logarithmic axis.
    zero: bool,
}

impl Ruler {
    fn of(scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Self {
        let finite = values.filter(|value| value.is_finite());
        let most = finite.clone().fold(f64::MIN, f64::max);
        match scale {
            Scale::Linear => {
                Self { scale, from: 0.0, to: if most > 0.0 { round_up(most) } else { 1.0 }, zero: false }
            }
            Scale::Logarithmic => {
                let zero = finite.clone().any(|value| value <= 0.0);
                let least = finite.filter(|value| *value > 0.0).fold(f64::MAX, f64::min);
                let (least, most) = if least > most { (1.0, 10.0) } else { (least, most) };
                let (from, to) = ((least.log10() + 1e-9).floor(), (most.log10() - 1e-9).ceil());
                let from = if zero { from - 1.0 } else { from };
                Self { scale, from, to: to.max(from + 1.0), zero }
            }
        }
    }

    /// Where a value lies, from 0 to 1.
    fn part(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic if value <= 0.0 => self.from,
            Scale::Logarithmic => value.log10(),
        };
        (value - self.from) / (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                (0..=EVEN_TICKS).map(|tick| self.to * f64::from(tick) / f64::from(EVEN_TICKS)).collect()
            }
            Scale::Logarithmic => {
                let mut ticks = Vec::new();
                let mut exponent = self.from;
                while exponent <= self.to + 1e-9 {
                    let is_zero = self.zero && exponent <= self.from + 1e-9;
                    ticks.push(if is_zero { 0.0 } else { 10_f64.powf(exponent) });
                    exponent += 1.0;
                }
                ticks
            }
        }
    }
}

/// The next number that divides well.
fn round_up(value: f64) -> f64 {
    let magnitude = 10_f64.powf(value.log10().floor());
    [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0]
        .into_iter()
        .map(|step| step * magnitude)
        .find(|candidate| *candidate >= value)
        .unwrap_or(value)
}

/// A number on an axis.
fn tick_text(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e9 => (value / 1e9, " G"),
        value if value >= 1e6 => (value / 1e6, " M"),
        value if value >= 1e4 => (value / 1e3, " k"),
        value => (value, ""),
    };
    let digits = if value >= 100.0 { 0 } else { 2 };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// Lines.
pub fn lines(title: &str, x_axis: &Axis<'_>, y_axis: &Axis<'_>, lines: &[Line]) -> String {
    draw(title, x_axis, y_axis, lines).0
}

/// Lines of one picture among others.
pub struct Picture<'a> {
    /// What they show.
    pub title: &'a str,
    /// From left to right.
    pub x_axis: Axis<'a>,
    /// From bottom to top.
    pub y_axis: Axis<'a>,
    /// The lines.
    pub lines: Vec<Line>,
}

/// Pictures, one below the other, as one.
pub fn stack(title: &str, pictures: &[Picture<'_>]) -> String {
    let drawn: Vec<_> = pictures
        .iter()
        .map(|picture| draw(picture.title, &picture.x_axis, &picture.y_axis, &picture.lines))
        .collect();
    let height: f64 = TOP + drawn.iter().map(|(_, height)| height).sum::<f64>();
    let mut svg = open(title, height);
    let mut y = TOP;
    for (picture, height) in drawn {
        let place = format!("<svg y=\"{y}\" width=\"{WIDTH}\" height=\"{height}\" ");
        svg.push_str(&picture.replacen("<svg ", &place, 1));
        y += height;
    }
    svg.push_str("</svg>\n");
    svg
}

/// Lines, and how high their picture is.
#[expect(clippy::cast_precision_loss, reason = "there are few lines")]
fn draw(title: &str, x_axis: &Axis<'_>, y_axis: &Axis<'_>, lines: &[Line]) -> (String, f64) {
    let points = || lines.iter().flat_map(|line| &line.points);
    let xs = Ruler::of(x_axis.scale, points().map(|point| point.0));
    let ys = Ruler::of(y_axis.scale, points().map(|point| point.1));
    let legend_rows = lines.len().div_ceil(LEGEND_COLUMNS) as f64;
    let bottom = TOP + PLOT_HEIGHT;
    let height = bottom + 54.0 + LEGEND_STEP * legend_rows;
    let mut svg = open(title, height);
    let x_of = |value: f64| LEFT + xs.part(value) * (WIDTH - LEFT - RIGHT);
    let y_of = |value: f64| bottom - ys.part(value) * PLOT_HEIGHT;
    for tick in ys.ticks() {
        let y = y_of(tick);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {y:.1}H{:.1}\" stroke=\"#dde2e8\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 7.0,
            y + 4.5,
            tick_text(tick)
        );
    }
    for tick in xs.ticks() {
        let x = x_of(tick);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {bottom}v5\" stroke=\"#333\"/><text x=\"{x:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">{}</text>",
            bottom + 19.0,
            tick_text(tick)
        );
    }
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {TOP}V{bottom}H{:.1}\" stroke=\"#333\" fill=\"none\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        WIDTH - RIGHT,
        f64::midpoint(LEFT, WIDTH - RIGHT),
        bottom + 38.0,
        escape(x_axis.title),
        TOP + PLOT_HEIGHT / 2.0,
        escape(y_axis.title)
    );
    for (place, line) in lines.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let mut path = String::new();
        let known = line.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
        for (step, (x, y)) in known.clone().enumerate() {
            let _ = write!(path, "{}{:.1} {:.1}", if step == 0 { "M" } else { "L" }, x_of(*x), y_of(*y));
        }
        let _ = writeln!(svg, "<path d=\"{path}\" stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\"/>");
        for (x, y) in known.filter(|_| line.points.len() <= MARKED_POINTS_MAX) {
            svg.push_str(&marker(place, x_of(*x), y_of(*y), colour));
        }
        let column = (WIDTH - LEFT - RIGHT) / LEGEND_COLUMNS as f64;
        let x = LEFT + column * (place % LEGEND_COLUMNS) as f64;
        let y = bottom + 58.0 + LEGEND_STEP * (place / LEGEND_COLUMNS) as f64;
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {y:.1}h26\" stroke=\"{colour}\" stroke-width=\"2\"/>{}<text x=\"{:.1}\" \
             y=\"{:.1}\">{}</text>",
            marker(place, x + 13.0, y, colour),
            x + 34.0,
            y + 4.5,
            escape(&line.label)
        );
    }
    svg.push_str("</svg>\n");
    (svg, height)
}

/// The shape of a line.
fn marker(place: usize, x: f64, y: f64, colour: &str) -> String {
    let m = MARKER;
    let polygon = |points: &[(f64, f64)]| {
        let points: Vec<String> =
            points.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy)).collect();
        format!("<polygon points=\"{}\" fill=\"{colour}\"/>", points.join(" "))
    };
    match place % 6 {
        0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{m}\" fill=\"{colour}\"/>"),
        1 => polygon(&[(-m, -m), (m, -m), (m, m), (-m, m)]),
        2 => polygon(&[(0.0, -m - 1.0), (m + 1.0, m), (-m - 1.0, m)]),
        3 => polygon(&[(0.0, -m - 1.5), (m + 1.5, 0.0), (0.0, m + 1.5), (-m - 1.5, 0.0)]),
        4 => polygon(&[(-m - 1.0, -m), (m + 1.0, -m), (0.0, m + 1.0)]),
        _ => format!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{m}\" fill=\"#ffffff\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_at_zero_lies_below_the_powers_of_ten() {
        let ruler = Ruler::of(Scale::Logarithmic, [0.0, 100.0, 10_000.0].into_iter());
        assert_eq!(ruler.ticks(), [0.0, 100.0, 1_000.0, 10_000.0]);
        assert!(ruler.part(0.0).abs() < 1e-9);
        assert!((ruler.part(10_000.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn pictures_lie_below_each_other() {
        let axis = || Axis { title: "x", scale: Scale::Linear };
        let line = Line { label: "a".into(), points: vec![(0.0, 1.0), (1.0, 2.0)] };
        let (alone, height) = draw("one", &axis(), &axis(), std::slice::from_ref(&line));
        let picture = || Picture {
            title: "one",
            x_axis: axis(),
            y_axis: axis(),
            lines: vec![Line { label: "a".into(), points: line.points.clone() }],
        };
        let both = stack("both", &[picture(), picture()]);
        assert!(alone.starts_with("<svg xmlns"));
        assert!(both.contains(&format!("<svg y=\"{TOP}\"")), "{both}");
        assert!(both.contains(&format!("<svg y=\"{}\"", TOP + height)), "{both}");
    }

    #[test]
    fn names_can_hold_anything() {
        let bar = Bar { label: "a < b & \"c\"".into(), spread: Spread::of([1.0]), fill: Fill::Theirs };
        let svg = bars("<title>", &[bar]);
        assert!(svg.contains("a &lt; b &amp; &quot;c&quot;") && svg.contains("&lt;title&gt;"));
    }

    #[test]
    fn numbers_on_axes_are_short() {
        assert_eq!(
            [0.0, 0.5, 1_000.0, 20_000.0, 1e6, 2.5e9].map(tick_text),
            ["0", "0.5", "1000", "20 k", "1 M", "2.5 G"]
        );
    }
}
