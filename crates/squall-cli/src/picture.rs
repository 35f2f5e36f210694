//! An epoch as a picture: row groups in stored order downwards, steps to the right.
//!
//! A cell has the mean of the colours of the ranks that get its rows, and is the denser the larger the share of its row
//! group's rows that come then. The colours go around the circle, so that a well-shuffled epoch is evenly grey.

use std::fmt::Write;

use squall::{DeliveryMap, Forecast, MapSize};

/// The map that is drawn, at most.
pub(crate) const SIZE: MapSize = MapSize {
    rows: 64,
    columns: 96,
    groups: 8,
};

const LEFT: f64 = 92.0;
const TOP: f64 = 84.0;
const WIDTH: f64 = 768.0;
const HEIGHT: f64 = 448.0;
const LEGEND: f64 = 200.0;

/// The picture of a forecast with a map.
pub(crate) fn svg(url: &str, forecast: &Forecast) -> String {
    let (width, height) = (LEFT + WIDTH + LEGEND, TOP + HEIGHT + 64.0);
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">"
    );
    let title = format!("Epoch {} of {}", forecast.epoch, escape(url));
    let _ = writeln!(out, "<title>{title}</title>");
    let _ = writeln!(out, "<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>");
    text(&mut out, (LEFT, 28.0), "font-size=\"17\" font-weight=\"bold\"", &title);
    let ranks = match forecast.groups == forecast.world_size {
        true => format!("{} ranks", forecast.world_size),
        false => format!("{} ranks in {} groups", forecast.world_size, forecast.groups),
    };
    let order = format!(
        "{} rows, {}, {} rows a global batch, shuffle {}, {} lanes, windows of {} rows, seed {}",
        forecast.rows, ranks, forecast.global_batch, forecast.shuffle, forecast.lanes, forecast.window, forecast.seed
    );
    text(&mut out, (LEFT, 49.0), "", &order);
    let figures = format!(
        "shuffle quality {} of global batches, {} of a rank's; read amplification {:.3}",
        estimate(forecast.quality.quality, forecast.quality.standard_error),
        estimate(forecast.quality.rank_quality, forecast.quality.rank_standard_error),
        forecast.read_amplification
    );
    text(&mut out, (LEFT, 67.0), "", &figures);
    if let Some(map) = &forecast.map {
        cells(&mut out, map);
        axes(&mut out, forecast);
        legend(&mut out, map, forecast);
    }
    out.push_str("</svg>\n");
    out
}

fn cells(out: &mut String, map: &DeliveryMap) {
    let (width, height) = (WIDTH / map.columns as f64, HEIGHT / map.rows as f64);
    let colours: Vec<_> = (0..map.groups).map(|group| colour(group, map.groups)).collect();
    // Edges of neighbours would show as lines if they were smoothed.
    out.push_str("<g shape-rendering=\"crispEdges\">\n");
    for row in 0..map.rows {
        let of_row = |column| map.cell(row, column).iter().sum::<u64>();
        let all: u64 = (0..map.columns).map(of_row).sum();
        for column in 0..map.columns {
            let counts = map.cell(row, column);
            let own = of_row(column);
            if own == 0 {
                continue;
            }
            let mean = |channel: usize| {
                let sum: f64 = (counts.iter().zip(&colours))
                    .map(|(count, colour)| *count as f64 * colour[channel])
                    .sum();
                (sum / own as f64).round() as u8
            };
            let density = density(own as f64 / all as f64 * map.columns as f64);
            let (x, y) = (LEFT + column as f64 * width, TOP + row as f64 * height);
            let _ = writeln!(
                out,
                "<path d=\"M{x:.2} {y:.2}h{width:.2}v{height:.2}h-{width:.2}z\" fill=\"#{:02x}{:02x}{:02x}\" fill-opacity=\"{density:.2}\"/>",
                mean(0),
                mean(1),
                mean(2)
            );
        }
    }
    out.push_str("</g>\n");
}

fn axes(out: &mut String, forecast: &Forecast) {
    let _ = writeln!(
        out,
        "<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#222\"/>"
    );
    for quarter in 0..=4u64 {
        let share = quarter as f64 / 4.0;
        let of = |n: u64| (u128::from(n) * u128::from(quarter) / 4).to_string();
        let (x, y) = (LEFT + share * WIDTH, TOP + share * HEIGHT);
        let bottom = TOP + HEIGHT;
        let _ = writeln!(
            out,
            "<path d=\"M{x} {bottom}v5M{LEFT} {y}h-5\" stroke=\"#222\" fill=\"none\"/>"
        );
        text(out, (x, bottom + 19.0), "text-anchor=\"middle\"", &of(forecast.steps));
        text(
            out,
            (LEFT - 9.0, y + 4.0),
            "text-anchor=\"end\"",
            &of(forecast.row_groups),
        );
    }
    let middle = (LEFT + WIDTH / 2.0, TOP + HEIGHT + 44.0);
    text(out, middle, "text-anchor=\"middle\" font-size=\"13\"", "step");
    let (x, y) = (20.0, TOP + HEIGHT / 2.0);
    let turned = format!("text-anchor=\"middle\" font-size=\"13\" transform=\"rotate(-90 {x} {y})\"");
    text(out, (x, y), &turned, "row group, as stored");
}

fn legend(out: &mut String, map: &DeliveryMap, forecast: &Forecast) {
    // The ranks of a group get the same rows.
    let (one, many) = match forecast.groups == forecast.world_size {
        true => ("rank", "ranks"),
        false => ("group", "groups"),
    };
    let x = LEFT + WIDTH + 24.0;
    let mut y = TOP + 10.0;
    text(out, (x, y), "font-weight=\"bold\"", "who gets the rows");
    let bound = |group: usize| (u128::from(forecast.groups) * group as u128).div_ceil(map.groups as u128);
    for group in 0..map.groups {
        y += 20.0;
        let [r, g, b] = colour(group, map.groups).map(|channel| channel.round() as u8);
        square(out, (x, y), &format!("fill=\"#{r:02x}{g:02x}{b:02x}\""));
        let (first, last) = (bound(group), bound(group + 1) - 1);
        let name = if first == last {
            format!("{one} {first}")
        } else {
            format!("{many} {first} to {last}")
        };
        text(out, (x + 22.0, y), "", &name);
    }
    y += 36.0;
    text(out, (x, y), "font-weight=\"bold\"", "how many come then");
    for (times, name) in [
        (0.25, "a quarter of even"),
        (1.0, "even over the epoch"),
        (4.0, "4 times"),
        (16.0, "16 times or more"),
    ] {
        y += 20.0;
        square(
            out,
            (x, y),
            &format!("fill=\"#777\" fill-opacity=\"{:.2}\"", density(times)),
        );
        text(out, (x + 22.0, y), "", name);
    }
}

fn square(out: &mut String, (x, y): (f64, f64), look: &str) {
    let y = y - 11.0;
    let _ = writeln!(
        out,
        "<rect x=\"{x}\" y=\"{y}\" width=\"14\" height=\"14\" stroke=\"#999\" stroke-width=\"0.5\" {look}/>"
    );
}

/// Text that is escaped already.
fn text(out: &mut String, (x, y): (f64, f64), look: &str, escaped: &str) {
    let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" {look}>{escaped}</text>");
}

/// An estimate with its standard error.
pub(crate) fn estimate(value: f64, error: Option<f64>) -> String {
    match error {
        Some(error) => format!("{value:.3} \u{b1} {error:.3}"),
        None => format!("{value:.3}"),
    }
}

/// How dense a cell is drawn that has so many times the rows of an even epoch.
fn density(times: f64) -> f64 {
    1.0 - (-0.5 * times).exp()
}

/// Red, green and blue of a group of ranks: hues around the circle, of which an even mix is grey; one alone is grey.
fn colour(group: usize, groups: usize) -> [f64; 3] {
    if groups == 1 {
        return [85.0; 3];
    }
    let turn = group as f64 / groups as f64;
    [0.0, 1.0, 2.0].map(|channel| {
        let angle = std::f64::consts::TAU * (turn - channel / 3.0);
        118.0 + 108.0 * angle.cos()
    })
}

/// Text for XML, which has no control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
