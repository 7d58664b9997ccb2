//! Bytes to pixels and back: decoding within limits, fitting into a square, encoding. It knows no states.

use std::io::Cursor;

use image::codecs::gif::GifEncoder;
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::codecs::webp::WebPEncoder;
use image::imageops::{self, FilterType};
use image::{DynamicImage, Frame, ImageError, ImageFormat, ImageReader, Limits, Rgba32FImage, RgbaImage};

use super::picture::Format;

/// The longest side of a picture that is read.
pub const SIDE_MAX_PX: u32 = 1024;

/// The most a decoder may take: four times what the largest picture needs as RGBA.
const DECODER_MAX_BYTES: u64 = 16 * SIDE_MAX_PX as u64 * SIDE_MAX_PX as u64;

/// Between 1, careful, and 30: fast enough for a request, and without loss up to 256 colours.
const GIF_SPEED: i32 = 10;

/// Longer sides than this are compressed quickly rather than well: somebody waits.
const LARGE_PX: u32 = 256;

/// Reads a picture, the first one of an animation. SVG has no pixels.
pub fn decode(bytes: &[u8], format: Format) -> Result<RgbaImage, ImageError> {
    let format = match format {
        Format::Gif => ImageFormat::Gif,
        Format::WebP => ImageFormat::WebP,
        Format::Png | Format::Svg => ImageFormat::Png,
    };
    reader(bytes, format, SIDE_MAX_PX, DECODER_MAX_BYTES).decode().map(DynamicImage::into_rgba8)
}

/// Of a picture with no longer side, whose decoder takes no more.
pub fn reader(bytes: &[u8], format: ImageFormat, side_max_px: u32, max_bytes: u64) -> ImageReader<Cursor<&[u8]>> {
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(side_max_px);
    limits.max_image_height = Some(side_max_px);
    limits.max_alloc = Some(max_bytes);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    reader
}

/// Scales a picture so that its longer side has `side_px`.
pub fn fit(image: RgbaImage, side_px: u16) -> RgbaImage {
    let (width, height) = image.dimensions();
    let longer = width.max(height);
    if longer == u32::from(side_px) {
        return image;
    }
    let scaled = |side: u32| (side * u32::from(side_px) / longer).max(1);
    let mut light = DynamicImage::from(image).into_rgba32f();
    multiply_alpha(&mut light);
    // What has no more detail to show needs no careful filter.
    let filter = if u32::from(side_px) > longer { FilterType::Triangle } else { FilterType::Lanczos3 };
    let mut light = imageops::resize(&light, scaled(width), scaled(height), filter);
    divide_alpha(&mut light);
    DynamicImage::from(light).into_rgba8()
}

/// The colour of a transparent pixel is nobody's: it must not bleed into its neighbours.
fn multiply_alpha(image: &mut Rgba32FImage) {
    for image::Rgba([r, g, b, alpha]) in image.pixels_mut() {
        [r, g, b].into_iter().for_each(|colour| *colour *= *alpha);
    }
}

fn divide_alpha(image: &mut Rgba32FImage) {
    for image::Rgba([r, g, b, alpha]) in image.pixels_mut().filter(|pixel| pixel[3] > 0.0) {
        [r, g, b].into_iter().for_each(|colour| *colour = (*colour / *alpha).min(1.0));
    }
}

/// Writes a picture; SVG cannot be made from pixels and becomes PNG.
pub fn encode(image: RgbaImage, format: Format) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    match format {
        Format::Gif => GifEncoder::new_with_speed(&mut bytes, GIF_SPEED).encode_frame(Frame::new(hard_edged(image)))?,
        Format::WebP => image.write_with_encoder(WebPEncoder::new_lossless(&mut bytes))?,
        Format::Png | Format::Svg => {
            let large = image.width().max(image.height()) > LARGE_PX;
            let compression = if large { CompressionType::Fast } else { CompressionType::Default };
            let encoder = PngEncoder::new_with_quality(&mut bytes, compression, PngFilter::Adaptive);
            image.write_with_encoder(encoder)?;
        }
    }
    Ok(bytes)
}

/// GIF knows only there and not there.
fn hard_edged(mut image: RgbaImage) -> RgbaImage {
    image.pixels_mut().for_each(|pixel| pixel[3] = if pixel[3] < 128 { 0 } else { 255 });
    image
}

#[cfg(test)]
mod tests {
    use image::Rgba;

    use super::*;

    const RED: Rgba<u8> = Rgba([255, 0, 0, 255]);

    #[test]
    fn the_longer_side_decides() {
        for (width, height, side_px, expected) in [
            (32, 32, 16, (16, 16)),
            (32, 16, 16, (16, 8)),
            (16, 32, 16, (8, 16)),
            (80, 20, 16, (16, 4)),
            (1024, 1, 8, (8, 1)),
            (16, 16, 64, (64, 64)),
            (16, 8, 16, (16, 8)),
        ] {
            assert_eq!(fit(RgbaImage::from_pixel(width, height, RED), side_px).dimensions(), expected);
        }
    }

    #[test]
    fn transparent_pixels_lend_no_colour() {
        let half = RgbaImage::from_fn(64, 64, |x, _| if x < 30 { RED } else { Rgba([0, 255, 0, 0]) });
        for pixel in fit(half, 16).pixels().filter(|pixel| pixel[3] > 0) {
            assert_eq!((pixel[0], pixel[1], pixel[2]), (255, 0, 0));
        }
    }

    #[test]
    fn formats_carry_pixels_there_and_back() {
        let edge = RgbaImage::from_fn(20, 20, |x, _| Rgba([200, 100, 0, if x < 10 { 255 } else { 100 }]));
        for format in [Format::Png, Format::WebP] {
            let bytes = encode(edge.clone(), format).expect("memory takes everything");
            assert_eq!(decode(&bytes, format).expect("it was just written"), edge, "{format:?}");
        }
        let bytes = encode(edge, Format::Gif).expect("memory takes everything");
        let read = decode(&bytes, Format::Gif).expect("it was just written");
        assert_eq!((read.get_pixel(0, 0), read.get_pixel(19, 0)[3]), (&Rgba([200, 100, 0, 255]), 0));
    }

    #[test]
    fn sides_have_a_limit() {
        let side = |px: u32| encode(RgbaImage::from_pixel(px, 1, RED), Format::Png).expect("memory takes everything");
        assert!(decode(&side(SIDE_MAX_PX), Format::Png).is_ok());
        assert!(decode(&side(SIDE_MAX_PX + 1), Format::Png).is_err());
    }

    #[test]
    fn broken_pictures_are_errors() {
        let whole = encode(RgbaImage::from_pixel(9, 9, RED), Format::Png).expect("memory takes everything");
        for cut in 0..whole.len() - 12 {
            assert!(decode(&whole[..cut], Format::Png).is_err(), "cut at {cut}");
        }
        assert!(decode(&whole, Format::Gif).is_err());
        assert!(decode(b"<svg/>", Format::Svg).is_err());
    }
}
