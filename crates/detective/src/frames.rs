//! The frames of a trace with what an image adds to them.
//!
//! Decides which address of a frame belongs to the code that was running: the byte before a return
//! address, since the return address itself may belong to the next line or even the next function.

use kolumbo_case::{DecodedLine, ExplainedFrame, Frame};
use kolumbo_dataflow::symbolic::line::Line;
use kolumbo_dataflow::{Printer, Syntax};
use kolumbo_vmlinux::dwarf::SourceFrame;

use crate::code::Images;
use crate::decode;
use crate::function::ImageCode;

/// Answers the source frames at a link address, innermost first.
pub type LinesOf<'a> = dyn Fn(u64) -> Vec<SourceFrame> + 'a;

/// Instructions shown before a return address.
const SHOWN: usize = 5;

/// One frame; `innermost` is a frame whose address is no return address.
pub fn explained(
    frame: &Frame,
    innermost: bool,
    images: &Images<'_>,
    with_code: Option<Syntax>,
) -> Option<ExplainedFrame> {
    let place = &frame.place;
    let function = place.function.as_ref()?;
    let mut text = function.clone();
    if let (Some(offset), Some(size)) = (place.offset, place.size) {
        text = format!("{text}+{offset:#x}/{size:#x}");
    }
    if let Some(module) = &place.module {
        text = format!("{text} [{module}]");
    }
    let mut source = match (&place.file, place.line) {
        (Some(file), Some(line)) => vec![format!("{file}:{line}")],
        _ => Vec::new(),
    };
    let mut code = Vec::new();
    if let Some((image, lines)) = images.of(place)
        && let Some(address) = image.link_address(place)
    {
        let at = if innermost { address } else { address.wrapping_sub(1) };
        if let Some(lines) = lines {
            let found: Vec<String> = lines(at).iter().map(source_text).collect();
            if !found.is_empty() {
                source = found;
            }
        }
        if let Some(syntax) = with_code {
            code = code_before(image, frame, syntax);
        }
    }
    Some(ExplainedFrame { text, reliable: frame.reliable, source, code })
}

/// `function (file:line)`.
pub fn source_text(frame: &SourceFrame) -> String {
    let place = match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.clone(),
        _ => "?".to_owned(),
    };
    match &frame.function {
        Some(function) => format!("{function} ({place})"),
        None => place,
    }
}

/// The last instructions up to the call that the frame returns to.
fn code_before(image: &ImageCode<'_, '_>, frame: &Frame, syntax: Syntax) -> Vec<DecodedLine> {
    let Some((function, offset)) = image.function(&frame.place).zip(frame.place.offset) else {
        return Vec::new();
    };
    let Ok(end) = usize::try_from(offset) else { return Vec::new() };
    let Some(line) = Line::decode_until(&function.bytes, 0, end) else { return Vec::new() };
    let name = frame.place.function.as_deref().unwrap_or_default();
    let symbol = |address: u64| {
        let located = image.image().symbols().lookup(address)?;
        Some(match located.offset {
            0 => located.symbol.name.to_owned(),
            offset => format!("{}+{offset:#x}", located.symbol.name),
        })
    };
    let mut printer = Printer::new(syntax).with_symbols(symbol);
    let first = line.steps.len().saturating_sub(SHOWN);
    line.steps[first..]
        .iter()
        .filter_map(|step| {
            let bytes = function.bytes.get(step.offset..step.offset + step.instruction.len())?;
            let instruction =
                kolumbo_dataflow::decode(bytes, function.address.wrapping_add(step.offset as u64))?;
            let text = printer.instruction(&instruction);
            Some(DecodedLine {
                address: format!("{name}+{:#x}", step.offset),
                bytes: decode::hex(bytes),
                text: text.split_whitespace().collect::<Vec<_>>().join(" "),
                ..Default::default()
            })
        })
        .collect()
}
