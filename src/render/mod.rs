//! A presence becomes a body: one file per family of types. Pure, but for `folder`, which reads the admin's own
//! pictures once. What a request asked for and which headers go with a body is the web side's business.

pub mod avatar;
pub mod builtin;
pub mod file;
pub mod folder;
pub mod json;
pub mod markup;
pub mod picture;
mod pixels;
pub mod text;
pub mod words;
