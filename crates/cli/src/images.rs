//! The images that a log is held against: the kernel, the modules that the log names, the lines of the
//! source tree.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kolumbo_case::{CodePlace, Explanation, ReadResult};
use kolumbo_detective::{ImageCode, Images, LoadedModule, Options};
use kolumbo_vmlinux::dwarf::{DebugSections, Lines, SourceFrame};
use kolumbo_vmlinux::{Elf, Image, Kernel, btf, module};
use memmap2::Mmap;

use crate::maintainers;

/// Folders deeper than this below a module folder are not looked into.
const DEEPEST: usize = 12;
/// A source file of more than this is not read.
const LARGEST_SOURCE: u64 = 16 << 20;

/// Files that hold the code that ran.
#[derive(Default)]
pub(crate) struct ImageFiles<'a> {
    /// Where the kernel lies.
    pub(crate) path: PathBuf,
    /// Its bytes.
    pub(crate) bytes: &'a [u8],
    /// The bytes of its System.map.
    pub(crate) system_map: Option<&'a [u8]>,
    /// A folder with modules.
    pub(crate) module_dir: Option<&'a Path>,
    /// Modules that are known by their file.
    pub(crate) modules: Vec<PathBuf>,
}

/// The explanation of what was read with these images.
pub(crate) fn explained(
    read: &ReadResult,
    options: &Options<'_>,
    files: &ImageFiles<'_>,
) -> Result<Explanation> {
    let kernel = Kernel::open(files.bytes)
        .with_context(|| format!("cannot read the kernel in {}", files.path.display()))?;
    if let Some(what) = other_release(read, &kernel, &files.path) {
        let mut alone = kolumbo_detective::explain(read, options);
        alone.gaps.push(kolumbo_case::Gap { what, span: None });
        return Ok(alone);
    }
    let symbols = kernel.symbols(files.system_map);
    let elf = kernel.elf();
    let image = Image::of_vmlinux(&elf, symbols.table);
    let code = ImageCode::new(&image);
    let beside = DebugSections::of(&elf).is_none().then(|| debug_file(&elf, &files.path)).flatten();
    let debug_elf = beside.as_ref().and_then(|bytes| Elf::parse(bytes).ok());
    let debug = DebugSections::of(debug_elf.as_ref().unwrap_or(&elf));
    let lines = debug.as_ref().map(DebugSections::lines);
    let base = lines.as_ref().and_then(|lines| build_folder(&image, lines)).unwrap_or_default();
    let frames = lines.as_ref().map(|lines| {
        let base = base.as_str();
        move |address| without_folder(lines.frames(address), base)
    });
    let types = |with: &mut dyn FnMut(&kolumbo_vmlinux::types::TypeGraph<'_>)| {
        if let Some(data) = elf.section_data(".BTF") {
            with(&btf::parse_btf(data, None).0);
        }
    };

    let mut gaps = Vec::new();
    let unpacked = modules_of(read, files, &mut gaps);
    let elfs: Vec<(String, Elf<'_>)> = unpacked
        .iter()
        .filter_map(|(name, bytes)| Some((name.clone(), Elf::parse(bytes).ok()?)))
        .collect();
    let linked: Vec<Image<'_>> = elfs
        .iter()
        .map(|(_, elf)| {
            module::link(elf, module::DEFAULT_BASE, |name| image.symbols().address_of(name))
        })
        .collect();
    let module_debug: Vec<Option<DebugSections<'_>>> = elfs
        .iter()
        .zip(&linked)
        .map(|((_, elf), image)| DebugSections::of_module(elf, image))
        .collect();
    let module_lines: Vec<Option<Lines<'_>>> =
        module_debug.iter().map(|d| d.as_ref().map(DebugSections::lines)).collect();
    let modules: Vec<LoadedModule<'_>> = elfs
        .iter()
        .zip(&linked)
        .zip(&module_lines)
        .map(|(((name, _), image), lines)| LoadedModule {
            name: name.clone(),
            code: ImageCode::new(image),
            lines: lines.as_ref().map(|lines| -> Box<dyn Fn(u64) -> Vec<SourceFrame>> {
                let base = base.as_str();
                Box::new(move |address| without_folder(lines.frames(address), base))
            }),
        })
        .collect();

    let images = Images {
        kernel: Some(&code),
        lines: frames.as_ref().map(|f| f as &kolumbo_detective::frames::LinesOf<'_>),
        types: Some(&types),
        modules: &modules,
    };
    let options = Options { images, ..*options };
    let mut explanation = kolumbo_detective::explain(read, &options);
    explanation.gaps.extend(gaps.into_iter().map(|what| kolumbo_case::Gap { what, span: None }));
    explanation.image = Some(match kernel.banner() {
        Some(banner) => format!("{}: {}", files.path.display(), banner.release),
        None => files.path.display().to_string(),
    });
    Ok(explanation)
}

/// The file with the debug information of `elf`, which lies at `path`: by its build ID where
/// distributions put it, or beside it. One with another build ID is not taken.
fn debug_file(elf: &Elf<'_>, path: &Path) -> Option<Mmap> {
    let id = elf.build_id().filter(|id| id.len() > 1)?;
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let by_id = format!(".build-id/{}/{}.debug", &hex[..2], &hex[2..]);
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name()?.to_owned();
    name.push(".debug");
    let candidates = [
        Path::new("/usr/lib/debug").join(&by_id),
        folder.join("usr/lib/debug").join(&by_id),
        folder.join(&by_id),
        folder.join(&name),
        folder.join(".debug").join(&name),
    ];
    candidates.iter().filter(|path| path.is_file()).find_map(|path| {
        let bytes = kolumbo_lab::kernel::map(path).ok()?;
        let same = Elf::parse(&bytes).ok()?.build_id() == Some(id);
        same.then_some(bytes)
    })
}

/// Why the image cannot be the kernel of the log: no crash names its release.
fn other_release(read: &ReadResult, kernel: &Kernel<'_>, path: &Path) -> Option<String> {
    let image = kernel.banner()?.release;
    let mut releases: Vec<&str> =
        read.reports.iter().filter_map(|r| r.context.release.as_deref()).collect();
    releases.dedup();
    (!releases.is_empty() && !releases.contains(&&*image)).then(|| {
        format!(
            "{} is Linux {image}, and the log is of {}: the image was not used; name the vmlinux of \
             the kernel that crashed",
            path.display(),
            releases.join(", ")
        )
    })
}

/// The folder that the kernel was built in, with its last slash: what stands before `init/main.c` in
/// the place of `start_kernel`, which has been there since 2.6 and earlier.
fn build_folder(image: &Image<'_>, lines: &Lines<'_>) -> Option<String> {
    let start = image.symbols().address_of("start_kernel")?;
    let file = lines.frames(start).pop()?.file?;
    file.strip_suffix("init/main.c").map(str::to_owned)
}

fn without_folder(mut frames: Vec<SourceFrame>, base: &str) -> Vec<SourceFrame> {
    for file in frames.iter_mut().filter_map(|f| f.file.as_mut()) {
        if let Some(inside) = file.strip_prefix(base) {
            *file = inside.to_owned();
        }
    }
    frames
}

/// The modules that the log names, unpacked, as far as they are found.
fn modules_of(
    read: &ReadResult,
    files: &ImageFiles<'_>,
    gaps: &mut Vec<String>,
) -> Vec<(String, Vec<u8>)> {
    let places = read.reports.iter().flat_map(|report| {
        let states = report.states.iter().filter_map(|s| s.pc.as_ref());
        let frames = report.traces.iter().flat_map(|t| t.frames.iter().map(|f| &f.place));
        states.chain(frames)
    });
    let named: BTreeSet<String> =
        places.filter_map(|p: &CodePlace| Some(p.module.as_ref()?.replace('-', "_"))).collect();
    if named.is_empty() || files.module_dir.is_none() && files.modules.is_empty() {
        return Vec::new();
    }
    let mut paths: HashMap<String, PathBuf> = HashMap::new();
    if let Some(dir) = files.module_dir {
        find_modules(dir, &named, &mut paths, DEEPEST);
    }
    for path in &files.modules {
        if let Some(name) = module_name(path) {
            paths.insert(name, path.clone());
        }
    }
    let mut found = Vec::new();
    for name in named {
        let Some(path) = paths.get(&name) else { continue };
        let bytes = std::fs::read(path).map_err(|e| e.to_string());
        match bytes
            .and_then(|b| module::unpack(&b).map(|c| c.into_owned()).map_err(|e| e.to_string()))
        {
            Ok(bytes) => found.push((name, bytes)),
            Err(why) => gaps.push(format!("cannot read the module {}: {why}", path.display())),
        }
    }
    found
}

/// `nf_tables` for `kernel/net/netfilter/nf-tables.ko.xz`.
fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let (stem, rest) = name.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst" | ".gz" | ".debug").then(|| stem.replace('-', "_"))
}

fn find_modules(
    dir: &Path,
    named: &BTreeSet<String>,
    found: &mut HashMap<String, PathBuf>,
    depth: usize,
) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        // A link to a folder, such as `build`, may lead in circles.
        if path.is_symlink() && path.is_dir() {
            continue;
        }
        if path.is_dir() {
            if depth > 0 {
                find_modules(&path, named, found, depth - 1);
            }
        } else if let Some(name) = module_name(&path).filter(|n| named.contains(n)) {
            found.entry(name).or_insert(path);
        }
    }
}

/// Puts the text of the source lines beside the code of `explanation`.
pub(crate) fn interleave(tree: &Path, explanation: &mut Explanation) {
    let mut files: HashMap<String, Vec<String>> = HashMap::new();
    for line in explanation.states.iter_mut().flat_map(|s| &mut s.code) {
        let Some(source) = line.source.first() else { continue };
        let place = source.rsplit_once('(').map_or(&**source, |(_, p)| p.trim_end_matches(')'));
        let number = place.rsplit_once(':').and_then(|(_, n)| n.parse::<usize>().ok());
        let (Some(file), Some(number)) = (maintainers::file_in(tree, source), number) else {
            continue;
        };
        let text = files.entry(file).or_insert_with_key(|file| lines_of(&tree.join(file)));
        line.source_text = number.checked_sub(1).and_then(|i| text.get(i)).cloned();
    }
}

fn lines_of(path: &Path) -> Vec<String> {
    let small = std::fs::metadata(path).is_ok_and(|m| m.len() <= LARGEST_SOURCE);
    let bytes = if small { std::fs::read(path).unwrap_or_default() } else { Vec::new() };
    String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
}
