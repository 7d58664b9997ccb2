//! The icons that come with the executable, as bytes: for each state the sizes that were drawn for the purpose, and
//! the drawings themselves. What is made from them is `picture`'s business.

use super::picture::Format;
use crate::presence::State;

/// From this size on the drawing with more detail is the better one.
const LARGE_MIN_PX: u16 = 32;

/// The icon of one state.
#[derive(Debug)]
pub struct Drawing {
    /// Side in pixels and file, the smallest first.
    png: [(u16, &'static [u8]); 8],
    gif: [(u16, &'static [u8]); 3],
    svg: &'static str,
    svg_small: &'static str,
}

impl Drawing {
    pub fn of(state: State) -> &'static Drawing {
        match state {
            State::Available => &AVAILABLE,
            State::Chat => &CHAT,
            State::Away => &AWAY,
            State::Xa => &XA,
            State::Dnd => &DND,
            State::Offline => &OFFLINE,
            State::Forbidden => &FORBIDDEN,
            State::Unknown => &UNKNOWN,
        }
    }

    /// The file of exactly this format and size, if there is one.
    pub fn exact(&self, format: Format, size_px: u16) -> Option<&'static [u8]> {
        let files: &[(u16, &[u8])] = match format {
            Format::Png => &self.png,
            Format::Gif => &self.gif,
            Format::WebP | Format::Svg => &[],
        };
        files.iter().find(|(size, _)| *size == size_px).map(|(_, file)| *file)
    }

    /// The PNG to scale from: the next larger one, else the largest.
    pub fn next_larger(&self, size_px: u16) -> &'static [u8] {
        let [.., largest] = self.png;
        self.png.into_iter().find(|(size, _)| *size >= size_px).unwrap_or(largest).1
    }

    /// The drawing, with its size written in: where a page gives none the browser would choose a large one.
    pub fn svg(&self, size_px: u16) -> String {
        let source = if size_px < LARGE_MIN_PX { self.svg_small } else { self.svg };
        source.replacen("<svg", &format!(r#"<svg width="{size_px}" height="{size_px}""#), 1)
    }
}

macro_rules! file {
    ($($part:literal),+) => { include_bytes!(concat!("../../images/default/", $($part),+)) };
}

macro_rules! drawing {
    ($state:literal) => {
        Drawing {
            png: [
                (16, file!($state, "-16.png")),
                (24, file!($state, "-24.png")),
                (32, file!($state, "-32.png")),
                (48, file!($state, "-48.png")),
                (64, file!($state, "-64.png")),
                (128, file!($state, "-128.png")),
                (256, file!($state, "-256.png")),
                (512, file!($state, "-512.png")),
            ],
            gif: [(16, file!($state, "-16.gif")), (24, file!($state, "-24.gif")), (32, file!($state, "-32.gif"))],
            svg: include_str!(concat!("../../images/default/", $state, ".svg")),
            svg_small: include_str!(concat!("../../images/default/", $state, "-small.svg")),
        }
    };
}

static AVAILABLE: Drawing = drawing!("available");
static CHAT: Drawing = drawing!("chat");
static AWAY: Drawing = drawing!("away");
static XA: Drawing = drawing!("xa");
static DND: Drawing = drawing!("dnd");
static OFFLINE: Drawing = drawing!("offline");
static FORBIDDEN: Drawing = drawing!("forbidden");
static UNKNOWN: Drawing = drawing!("unknown");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::pixels::decode;

    #[test]
    fn every_file_is_what_its_place_says() {
        for state in State::ALL {
            let drawing = Drawing::of(state);
            for (format, files) in [(Format::Png, &drawing.png[..]), (Format::Gif, &drawing.gif[..])] {
                assert!(files.is_sorted_by_key(|(size, _)| *size), "next_larger needs the order");
                for (size, file) in files {
                    let image = decode(file, format).expect("it is a picture");
                    let side = u32::from(*size);
                    assert_eq!((image.width(), image.height()), (side, side), "{state:?} {format:?} {size}");
                }
            }
        }
    }

    #[test]
    fn drawings_have_a_size_and_no_script() {
        for state in State::ALL {
            for size_px in [8, 16, 31, 32, 1024] {
                let svg = Drawing::of(state).svg(size_px);
                let start = format!(r#"<svg width="{size_px}" height="{size_px}" xmlns="http://www.w3.org/2000/svg""#);
                assert!(svg.starts_with(&start), "{svg}");
                assert!(svg.contains("<title>") && !svg.contains("script") && !svg.contains("href"), "{svg}");
                assert_eq!(svg.matches(" width=").count(), 1 + svg.matches("<rect width=").count(), "{svg}");
            }
            assert_ne!(Drawing::of(state).svg, Drawing::of(state).svg_small);
        }
    }

    #[test]
    fn states_are_told_apart() {
        let icons: std::collections::HashSet<&[u8]> =
            State::ALL.iter().filter_map(|state| Drawing::of(*state).exact(Format::Png, 16)).collect();
        assert_eq!(icons.len(), State::ALL.len());
    }
}
