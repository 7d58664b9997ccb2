//! From pixels to the bytes of a PNG or GIF, as few as the format allows without changing a pixel that can be seen.
//! GIF knows no half-transparent pixel; what becomes of the edges is decided here.

use std::collections::BTreeSet;
use std::fmt;

use image::ExtendedColorType;
use image::codecs::gif::GifEncoder;
use png::{BitDepth, ColorType, DeflateCompression, Encoder, Filter};

use crate::draw::Pixels;

#[derive(Debug)]
pub enum Error {
    Png(png::EncodingError),
    Gif(image::ImageError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Png(error) => write!(f, "cannot be written: {error}"),
            Error::Gif(error) => write!(f, "cannot be written: {error}"),
        }
    }
}

/// Row filters worth a try; which one wins depends on the picture.
const FILTERS: [Filter; 6] = [Filter::NoFilter, Filter::Sub, Filter::Up, Filter::Avg, Filter::Paeth, Filter::Adaptive];

/// From this alpha on a pixel of a GIF is opaque, below it is transparent. Half would keep the soft light outline that
/// drawings have for dark pages and make a hard white fringe of it; from three quarters on a pixel is mostly drawing.
const GIF_OPAQUE_ALPHA: u8 = 192;

/// PNG with 8 bits: a palette where 256 colours suffice, else RGBA; the smallest of all filters.
pub fn png(pixels: &Pixels) -> Result<Vec<u8>, Error> {
    let palette = Palette::of(pixels);
    let mut best: Option<Vec<u8>> = None;
    for filter in FILTERS {
        let bytes = png_with(pixels, palette.as_ref(), filter).map_err(Error::Png)?;
        if best.as_ref().is_none_or(|best| bytes.len() < best.len()) {
            best = Some(bytes);
        }
    }
    Ok(best.expect("there are filters"))
}

/// GIF with 1-bit transparency: see `GIF_OPAQUE_ALPHA`. Opaque pixels keep the colour they have without a background,
/// so that no page's colour is mixed in.
pub fn gif(pixels: &Pixels) -> Result<Vec<u8>, Error> {
    let flat: Vec<u8> = pixels.rgba.iter().flat_map(|&pixel| opaque_or_nothing(pixel)).collect();
    let mut bytes = Vec::new();
    GifEncoder::new_with_speed(&mut bytes, 1)
        .encode(&flat, pixels.size_px, pixels.size_px, ExtendedColorType::Rgba8)
        .map_err(Error::Gif)?;
    Ok(bytes)
}

fn opaque_or_nothing([red, green, blue, alpha]: [u8; 4]) -> [u8; 4] {
    if alpha < GIF_OPAQUE_ALPHA { [0; 4] } else { [red, green, blue, 255] }
}

/// At most 256 colours, transparent ones first: the alpha table of a PNG ends at its last transparent colour.
struct Palette(Vec<[u8; 4]>);

impl Palette {
    /// Nothing where the picture has more colours.
    fn of(pixels: &Pixels) -> Option<Palette> {
        let colors: BTreeSet<[u8; 4]> = pixels.rgba.iter().copied().collect();
        if colors.len() > 256 {
            return None;
        }
        let mut colors: Vec<_> = colors.into_iter().collect();
        colors.sort_by_key(|&[red, green, blue, alpha]| (alpha, red, green, blue));
        Some(Palette(colors))
    }

    fn index(&self, color: [u8; 4]) -> u8 {
        let place = self.0.iter().position(|&entry| entry == color).expect("the palette is made of these pixels");
        u8::try_from(place).expect("a palette has at most 256 colours")
    }
}

fn png_with(pixels: &Pixels, palette: Option<&Palette>, filter: Filter) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, pixels.size_px, pixels.size_px);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_deflate_compression(DeflateCompression::Level(9));
    encoder.set_filter(filter);
    let data: Vec<u8> = match palette {
        Some(palette) => {
            encoder.set_color(ColorType::Indexed);
            encoder.set_palette(palette.0.iter().flat_map(|color| [color[0], color[1], color[2]]).collect::<Vec<_>>());
            encoder.set_trns(palette.0.iter().map(|c| c[3]).take_while(|&alpha| alpha < 255).collect::<Vec<_>>());
            pixels.rgba.iter().map(|&color| palette.index(color)).collect()
        }
        None => {
            encoder.set_color(ColorType::Rgba);
            pixels.rgba.concat()
        }
    };
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&data)?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(size_px: u32, color: impl Fn(u32) -> [u8; 4]) -> Pixels {
        Pixels { size_px, rgba: (0..size_px * size_px).map(color).collect() }
    }

    fn decoded(bytes: &[u8]) -> Vec<[u8; 4]> {
        image::load_from_memory(bytes).unwrap().into_rgba8().pixels().map(|pixel| pixel.0).collect()
    }

    /// The colour type stands in byte 25 of every PNG (IHDR): 3 is indexed, 6 is RGBA.
    #[test]
    fn png_keeps_every_pixel_with_a_palette_up_to_256_colours() {
        let shade = |n: u32| [n as u8, (n >> 8) as u8, 7, 255 - (n % 200) as u8];
        for (colors, color_type) in [(1, 3), (2, 3), (256, 3), (257, 6), (1024, 6)] {
            let pixels = square(32, |n| shade(n % colors));
            let bytes = png(&pixels).unwrap();
            assert_eq!(decoded(&bytes), pixels.rgba, "{colors} colours");
            assert_eq!(bytes[25], color_type, "{colors} colours");
        }
    }

    #[test]
    fn gif_pixels_are_opaque_in_their_own_colour_or_nothing() {
        let cases = [(0, 0), (GIF_OPAQUE_ALPHA - 1, 0), (GIF_OPAQUE_ALPHA, 255), (255, 255)];
        let pixels = square(2, |n| [10 * n as u8, 20, 30, cases[n as usize].0]);
        let alphas: Vec<u8> = decoded(&gif(&pixels).unwrap()).iter().map(|pixel| pixel[3]).collect();
        assert_eq!(alphas, cases.map(|(_, made)| made));
        let colors: Vec<_> = decoded(&gif(&pixels).unwrap())[2..].to_vec();
        assert_eq!(colors, [[20, 20, 30, 255], [30, 20, 30, 255]]);
    }
}
