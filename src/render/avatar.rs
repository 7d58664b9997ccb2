//! `type=avatar`: what a person published as his picture, drawn anew. The bytes are a stranger's: their sizes are looked
//! at before anything is decoded, only pixels come through, cut to a square, and one is worked on at a time. What is no
//! picture stays none.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use image::error::LimitErrorKind;
use image::imageops::{crop_imm, thumbnail};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, RgbaImage, guess_format};
use ring::digest::{SHA256, digest};
use tokio::task::spawn_blocking;

use super::file::File;
use super::picture::Format;
use super::pixels;
use crate::presence::Picture;

/// The longest side of a picture that is read.
pub const SIDE_MAX_PX: u32 = 4096;
/// The most pixels of one.
pub const AREA_MAX_PX: u64 = 2048 * 2048;
/// The most a decoder may take: a picture of that area as RGBA.
const DECODER_MAX_BYTES: u64 = 4 * AREA_MAX_PX;
/// Above this side the careful filter would cost more memory than it is worth.
const CAREFUL_MAX_PX: u32 = 1024;

/// The pictures made so far, by their originals.
#[derive(Debug, Default)]
pub struct Avatars {
    made: Mutex<Made>,
    /// Whoever has it makes a picture.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Avatars {
    /// The picture as a square file of this size; `None` where the original is none. Computes on a thread of its own, one
    /// after the other.
    pub async fn in_turn(self: &Arc<Avatars>, original: &Picture, format: Format, side_px: u16) -> Option<File> {
        let key = Key { original: digest_of(original), format, side_px };
        if let Some(made) = self.made().find(&key) {
            return made;
        }
        let (avatars, original) = (self.clone(), original.clone());
        let turn = self.turn.clone().lock_owned().await;
        // The turn ends with the work, not with a visitor who goes away.
        let made = spawn_blocking(move || {
            let _turn = turn;
            // Whoever had the turn before may have made the same one.
            let known = avatars.made().find(&key);
            known.unwrap_or_else(|| {
                let file = redrawn(original.bytes(), format, side_px).ok();
                let file = file.map(|file| File::from(Bytes::from(file)));
                avatars.made().keep(key, &file);
                file
            })
        });
        made.await.unwrap_or_else(|broken| resume_unwind(broken.into_panic()))
    }

    /// A panic elsewhere leaves the map whole: nothing is called while it is held.
    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn redrawn(original: &[u8], format: Format, side_px: u16) -> Result<Vec<u8>, ImageError> {
    pixels::encode(square(decode(original)?, side_px), format)
}

/// Whatever its author says it is, the bytes tell; the first picture of an animation, upright.
fn decode(bytes: &[u8]) -> Result<DynamicImage, ImageError> {
    let reader = pixels::reader(bytes, guess_format(bytes)?, SIDE_MAX_PX, DECODER_MAX_BYTES);
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > AREA_MAX_PX || decoder.total_bytes() > DECODER_MAX_BYTES {
        return Err(ImageError::Limits(LimitErrorKind::DimensionError.into()));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// The middle of a picture, scaled: roughly first, with whole pixels, as far as that leaves enough for the careful filter.
fn square(image: DynamicImage, side_px: u16) -> RgbaImage {
    let mut image = image.into_rgba8();
    let (width, height) = image.dimensions();
    let side = width.min(height);
    let (x, y) = ((width - side) / 2, (height - side) / 2);
    let rough = (2 * u32::from(side_px)).min(CAREFUL_MAX_PX).max(side_px.into());
    if side <= rough {
        return pixels::fit(crop_imm(&image, x, y, side, side).to_image(), side_px);
    }
    multiply_alpha(&mut image);
    let mut smaller = thumbnail(&*crop_imm(&image, x, y, side, side), rough, rough);
    divide_alpha(&mut smaller);
    pixels::fit(smaller, side_px)
}

/// As in `pixels`, in the little memory that the original takes.
fn multiply_alpha(image: &mut RgbaImage) {
    for image::Rgba([r, g, b, alpha]) in image.pixels_mut() {
        [r, g, b].into_iter().for_each(|colour| *colour = scaled(*colour, *alpha, 255));
    }
}

fn divide_alpha(image: &mut RgbaImage) {
    for image::Rgba([r, g, b, alpha]) in image.pixels_mut().filter(|pixel| pixel[3] > 0) {
        [r, g, b].into_iter().for_each(|colour| *colour = scaled(*colour, 255, *alpha));
    }
}

fn scaled(colour: u8, by: u8, of: u8) -> u8 {
    let scaled = (u16::from(colour) * u16::from(by) + u16::from(of) / 2) / u16::from(of);
    u8::try_from(scaled).unwrap_or(u8::MAX)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// SHA-256.
    original: [u8; 32],
    format: Format,
    side_px: u16,
}

fn digest_of(original: &Picture) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, original.bytes()).as_ref());
    bytes
}

/// What was made, or could not be. Whoever asks for all sizes empties it again and again, and nobody else notices.
#[derive(Debug, Default)]
struct Made {
    files: HashMap<Key, Option<File>>,
    bytes: usize,
}

const MADE_MAX_BYTES: usize = 4 * 1024 * 1024;
/// What an entry counts beside its file.
const OVERHEAD: usize = 256;

impl Made {
    fn find(&self, key: &Key) -> Option<Option<File>> {
        self.files.get(key).cloned()
    }

    fn keep(&mut self, key: Key, file: &Option<File>) {
        let bytes = OVERHEAD + file.as_ref().map_or(0, |file| file.bytes.len());
        if bytes > MADE_MAX_BYTES || self.files.contains_key(&key) {
            return;
        }
        if self.bytes + bytes > MADE_MAX_BYTES {
            *self = Made::default();
        }
        self.bytes += bytes;
        self.files.insert(key, file.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, Rgb, RgbImage, Rgba};
    use proptest::prelude::*;

    use super::*;

    const RED: Rgba<u8> = Rgba([255, 0, 0, 255]);
    const BLUE: Rgba<u8> = Rgba([0, 0, 255, 255]);
    const FORMATS: [Format; 3] = [Format::Png, Format::Gif, Format::WebP];

    fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).expect("memory takes everything");
        bytes.into_inner()
    }

    fn png(width: u32, height: u32) -> Vec<u8> {
        encoded(RgbaImage::from_pixel(width, height, RED), ImageFormat::Png)
    }

    /// A picture in every format that people publish.
    fn originals() -> [Vec<u8>; 4] {
        let image = RgbImage::from_fn(40, 30, |x, y| Rgb([(x * 6) as u8, (y * 8) as u8, 9]));
        [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP]
            .map(|format| if format == ImageFormat::Gif { gif(&image) } else { encoded(image.clone(), format) })
    }

    fn gif(image: &RgbImage) -> Vec<u8> {
        pixels::encode(DynamicImage::from(image.clone()).into_rgba8(), Format::Gif).expect("memory takes everything")
    }

    fn drawn(original: &[u8], format: Format, side_px: u16) -> Option<RgbaImage> {
        let file = redrawn(original, format, side_px).ok()?;
        Some(pixels::decode(&file, format).expect("it was just written"))
    }

    #[test]
    fn every_format_becomes_a_square_of_the_size_asked_for() {
        for original in originals() {
            for format in FORMATS {
                for side_px in [8, 16, 30, 64] {
                    let drawn = drawn(&original, format, side_px).expect("a picture");
                    assert_eq!(drawn.dimensions(), (side_px.into(), side_px.into()), "{format:?}");
                }
            }
        }
    }

    #[test]
    fn the_middle_is_shown() {
        for (width, height) in [(300, 100), (100, 300), (30, 10), (3000, 1000)] {
            let third = |x: u32, y: u32| if width > height { x * 3 / width } else { y * 3 / height };
            let image = RgbaImage::from_fn(width, height, |x, y| if third(x, y) == 1 { RED } else { BLUE });
            let drawn = drawn(&encoded(image, ImageFormat::Png), Format::Png, 8).expect("a picture");
            assert!(drawn.pixels().all(|pixel| *pixel == RED), "{width} x {height}");
        }
    }

    #[test]
    fn transparent_pixels_lend_no_colour() {
        for side in [16, 500] {
            let image =
                RgbaImage::from_fn(side, side, |x, _| if x * 7 < side * 3 { RED } else { Rgba([0, 255, 0, 0]) });
            let drawn = drawn(&encoded(image, ImageFormat::Png), Format::Png, 8).expect("a picture");
            for pixel in drawn.pixels().filter(|pixel| pixel[3] > 0) {
                assert_eq!((pixel[0], pixel[1], pixel[2]), (255, 0, 0), "from {side}");
            }
        }
    }

    /// A camera's picture lies on its side, and says so in what is not drawn anew.
    #[test]
    fn pictures_stand_upright_and_keep_nothing_but_pixels() {
        let image = RgbImage::from_fn(64, 64, |_, y| if y < 32 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) });
        let plain = encoded(image, ImageFormat::Jpeg);
        let exif = b"\xff\xe1\x00\x26Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0SECRET-PLACE";
        let turned = [&plain[..2], &exif[..], &plain[2..]].concat();
        let red_above = |original: &[u8]| {
            let drawn = drawn(original, Format::Png, 16).expect("a picture");
            (drawn.get_pixel(8, 2)[0] > 200, drawn.get_pixel(8, 13)[2] > 200)
        };
        assert_eq!((red_above(&plain), red_above(&turned)), ((true, true), (false, false)));
        for format in FORMATS {
            let file = redrawn(&turned, format, 16).expect("a picture");
            assert!(!file.windows(6).any(|window| window == b"SECRET"), "{format:?}");
        }
    }

    #[test]
    fn sizes_have_limits_before_anything_is_decoded() {
        let area = |width: u32| AREA_MAX_PX as u32 / width;
        for (width, height) in [(SIDE_MAX_PX, 1), (1, SIDE_MAX_PX), (SIDE_MAX_PX, area(SIDE_MAX_PX)), (2048, 2048)] {
            assert!(drawn(&png(width, height), Format::Png, 8).is_some(), "{width} x {height}");
        }
        for (width, height) in [(SIDE_MAX_PX + 1, 1), (1, SIDE_MAX_PX + 1), (SIDE_MAX_PX, 1025), (2048, 2049)] {
            assert!(drawn(&png(width, height), Format::Png, 8).is_none(), "{width} x {height}");
        }
        let deep = DynamicImage::new_rgba16(2048, 2048);
        assert!(drawn(&encoded(deep, ImageFormat::Png), Format::Png, 8).is_none(), "two bytes for each colour");
    }

    #[test]
    fn what_is_no_picture_is_none() {
        let mut bomb = png(8, 8);
        // The header's width and height; its checksum no longer holds either.
        bomb[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
        let rows: [&[u8]; 8] = [
            b"x",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"GIF89a",
            b"\xff\xd8\xff\xe0",
            b"\x89PNG\r\n\x1a\n",
            b"RIFF\x04\0\0\0WEBP",
            b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0",
            &bomb,
        ];
        for bytes in rows {
            assert!(drawn(bytes, Format::Png, 16).is_none(), "{bytes:?}");
        }
        let [png, _, gif, webp] = originals();
        for whole in [png, gif, webp] {
            assert!(drawn(&whole[..whole.len() / 2], Format::Png, 16).is_none(), "half of it");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        /// Whatever the bytes are, there is a picture or none, and never more.
        #[test]
        fn spoiled_pictures_break_nothing(
            which in 0..4_usize,
            spoilt in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = originals()[which].clone();
            for (place, byte) in spoilt {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            let cut = cut.index(bytes.len() * 2);
            bytes.truncate(cut.max(1));
            if let Some(drawn) = drawn(&bytes, Format::Png, 16) {
                prop_assert_eq!(drawn.dimensions(), (16, 16));
            }
        }
    }

    #[tokio::test]
    async fn pictures_are_made_in_turn_and_once() {
        let avatars = Arc::new(Avatars::default());
        let original = Picture::new(&png(30, 30)).expect("small");
        let broken = Picture::new(b"GIF89a").expect("small");
        let turn = avatars.turn.clone().lock_owned().await;
        let ask = |picture: &Picture| {
            let (avatars, picture) = (avatars.clone(), picture.clone());
            tokio::spawn(async move { avatars.in_turn(&picture, Format::Png, 16).await })
        };
        let asked = [ask(&original), ask(&original), ask(&broken)];
        tokio::task::yield_now().await;
        assert!(avatars.made().files.is_empty(), "it is not their turn");
        drop(turn);
        let [first, second, none] = asked;
        let file = first.await.expect("no panic");
        assert_eq!((file.is_some(), second.await.expect("no panic")), (true, file.clone()));
        assert_eq!(none.await.expect("no panic"), None);
        assert_eq!(avatars.made().files.len(), 2);
        let _turn = avatars.turn.clone().lock_owned().await;
        assert_eq!(avatars.in_turn(&original, Format::Png, 16).await, file, "it was remembered");
        assert_eq!(avatars.in_turn(&broken, Format::Png, 16).await, None, "that it is none, too");
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let key = |side_px| Key { original: [0; 32], format: Format::Png, side_px };
        let file = |bytes: usize| File::from(Bytes::from(vec![0; bytes]));
        let mut made = Made::default();
        made.keep(key(1), &Some(file(MADE_MAX_BYTES - 2 * OVERHEAD)));
        made.keep(key(2), &None);
        made.keep(key(2), &None);
        assert_eq!((made.files.len(), made.bytes), (2, MADE_MAX_BYTES));
        made.keep(key(3), &Some(file(MADE_MAX_BYTES)));
        assert_eq!((made.files.len(), made.bytes), (2, MADE_MAX_BYTES));
        made.keep(key(3), &None);
        assert_eq!((made.files.len(), made.bytes), (1, OVERHEAD));
    }
}
