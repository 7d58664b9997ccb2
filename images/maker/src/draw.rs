//! From an SVG drawing to pixels, by resvg. Nothing outside the drawing is read: no font, no linked picture.

use std::fmt;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, ImageHrefResolver, Options, Tree};

/// A square of pixels, row by row, red green blue alpha, colours not multiplied by alpha.
pub struct Pixels {
    pub size_px: u32,
    pub rgba: Vec<[u8; 4]>,
}

#[derive(Debug)]
pub enum Error {
    Svg(usvg::Error),
    NotSquare { width: f32, height: f32 },
    Empty,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Svg(error) => write!(f, "not a drawing: {error}"),
            Error::NotSquare { width, height } => write!(f, "{width} wide and {height} high; an icon is square"),
            Error::Empty => f.write_str("draws nothing"),
        }
    }
}

pub fn pixels(svg: &[u8], size_px: u32) -> Result<Pixels, Error> {
    let tree = Tree::from_data(svg, &closed_options()).map_err(Error::Svg)?;
    let (width, height) = (tree.size().width(), tree.size().height());
    if width != height {
        return Err(Error::NotSquare { width, height });
    }
    let mut pixmap = Pixmap::new(size_px, size_px).expect("the sizes are constants above 0");
    let scale = size_px as f32 / width;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixmap.as_mut());
    let rgba: Vec<[u8; 4]> = pixmap
        .pixels()
        .iter()
        .map(|pixel| pixel.demultiply())
        .map(|color| [color.red(), color.green(), color.blue(), color.alpha()])
        .collect();
    if rgba.iter().all(|pixel| pixel[3] == 0) {
        return Err(Error::Empty);
    }
    Ok(Pixels { size_px, rgba })
}

fn closed_options() -> Options<'static> {
    let image_href_resolver =
        ImageHrefResolver { resolve_data: Box::new(|_, _, _| None), resolve_string: Box::new(|_, _| None) };
    Options { image_href_resolver, ..Options::default() }
}
