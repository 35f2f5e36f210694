//! jpeg by libjpeg-turbo, in the form of mozjpeg with its defaults switched off: OpenCV's pixels, and OpenCV's bytes.
//!
//! libjpeg reports an error by a callback that must not return. Ours unwinds through the C code, which is compiled for it,
//! to [`caught`]; no panic hook runs. Warnings take the same way: libjpeg goes on after them with grey pixels.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null;

use mozjpeg::qtable::{AnnexK_Chroma, AnnexK_Luma};
use mozjpeg::{ColorSpace, Compress, Decompress};
use mozjpeg_sys::{jpeg_common_struct, jpeg_error_mgr};

use super::super::Size;
use super::{Frame, entropy};
use crate::{Error, Result, panic_text};

#[cfg(panic = "abort")]
compile_error!("the feature jpeg-turbo needs panic = \"unwind\": a damaged image would end the process");

/// Up to this quality some of libjpeg's quantization steps are over 255.
const COARSE: u8 = 24;

pub(super) fn decode(cell: &[u8], frame: &Frame, pixels: &mut [u8]) -> Result<()> {
    decode_scaled(cell, frame, 8, pixels)
}

/// The scale, in eighths, that an image is decoded at where another one is wanted.
pub(super) fn scale(wanted: u8) -> u8 {
    wanted.clamp(1, 8)
}

pub(super) fn decode_scaled(cell: &[u8], frame: &Frame, eighths: u8, pixels: &mut [u8]) -> Result<()> {
    caught(|| {
        let mut image = Decompress::with_err(errors()).from_mem(cell)?;
        if eighths != 8 {
            image.scale(eighths);
        }
        let mut image = match frame.size.channels {
            1 => image.grayscale()?,
            _ => image.rgb()?,
        };
        let n_pixels = image.read_scanlines_into(pixels)?.len();
        // Goes to the end of the image, and warns of what was left over.
        image.finish()?;
        if n_pixels != pixels.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    })
    .map_err(|reason| match entropy::check(cell, frame) {
        Err(place) => place,
        Ok(()) => Error::corrupt("cannot decode the jpeg image").with_source(reason),
    })
}

pub(super) fn encode(pixels: &[u8], size: Size, quality: u8) -> Result<Vec<u8>> {
    let color = match size.channels {
        1 => ColorSpace::JCS_GRAYSCALE,
        _ => ColorSpace::JCS_RGB,
    };
    caught(|| {
        let mut image = Compress::new_err(Box::new(errors()), color);
        image.set_size(size.width, size.height);
        // Without mozjpeg's own ways of making a file small.
        image.set_fastest_defaults();
        image.set_quality(f32::from(quality));
        if quality <= COARSE {
            // OpenCV keeps to steps of 8 bits (libjpeg's force_baseline), `set_quality` does not.
            // Its percentage for this quality, and a little for halves to be rounded up as it does.
            let percent = f32::from(5000 / u16::from(quality)) + 0.005;
            let same = 5000.0 / percent;
            image.set_luma_qtable(&AnnexK_Luma.scaled(same, same));
            image.set_chroma_qtable(&AnnexK_Chroma.scaled(same, same));
        }
        let mut image = image.start_compress(Vec::new())?;
        image.write_scanlines(pixels)?;
        image.finish()
    })
    .map_err(|reason| Error::internal("cannot encode the jpeg image").with_source(reason))
}

/// Why libjpeg stopped. Its own message lies behind a pointer, and is not worth unsafe code.
enum Stop {
    Error,
    Warning,
}

/// The result of calls into libjpeg, or why it stopped.
fn caught<T>(calls: impl FnOnce() -> io::Result<T>) -> Result<T, String> {
    // Nothing of what the calls made outlives them.
    match catch_unwind(AssertUnwindSafe(calls)) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(panic) => Err(match panic.downcast::<Stop>() {
            Ok(stop) => match *stop {
                Stop::Error => "libjpeg cannot go on".to_owned(),
                Stop::Warning => "libjpeg found entropy-coded data that breaks its format".to_owned(),
            },
            Err(other) => panic_text(&*other).to_owned(),
        }),
    }
}

fn errors() -> jpeg_error_mgr {
    extern "C-unwind" fn error(_: &mut jpeg_common_struct) {
        resume_unwind(Box::new(Stop::Error));
    }
    extern "C-unwind" fn message(_: &mut jpeg_common_struct, level: i32) {
        // Levels from 0 on are traces.
        if level < 0 {
            resume_unwind(Box::new(Stop::Warning));
        }
    }
    extern "C-unwind" fn nothing(_: &mut jpeg_common_struct) {}
    extern "C-unwind" fn no_text(_: &mut jpeg_common_struct, _: &[u8; 80]) {}
    jpeg_error_mgr {
        error_exit: Some(error),
        emit_message: Some(message),
        output_message: Some(nothing),
        format_message: Some(no_text),
        reset_error_mgr: Some(nothing),
        msg_code: 0,
        msg_parm: Default::default(),
        trace_level: 0,
        num_warnings: 0,
        // Only messages are looked up in the tables.
        jpeg_message_table: null(),
        last_jpeg_message: 0,
        addon_message_table: null(),
        first_addon_message: 0,
        last_addon_message: 0,
    }
}
