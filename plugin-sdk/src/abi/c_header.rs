//! `include/mercury_plugin.h`, made of the layouts of the types that cross.
//!
//! `abi_stable` keeps a description of each type, for the comparison at load time. Here the same
//! descriptions are written as C, so that the header follows the types and not somebody's memory
//! of them. A test compares it with the committed file, and a C compiler's sizes and offsets with
//! those of this crate's compiler.
//!
//! `MERCURY_WRITE_HEADER=1 cargo test -p plugin-sdk c_header` writes the file anew.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::mem::offset_of;
use std::path::PathBuf;
use std::process::Command;

use abi_stable::StableAbi;
use abi_stable::std_types::RStr;
use abi_stable::type_layout::{TLData, TLField, TLFunction, TLPrimitive, TypeLayout};

use super::{
    ABI_MAJOR, ABI_MINOR, AbiBuffer, AbiBytes, AbiCHost, AbiCPlugin, AbiCall, AbiDescriptor,
    AbiHost, AbiInstance, AbiLend, AbiLog, AbiObject, AbiOutcome, AbiPoll, AbiReply, AbiSink,
    AbiSource, AbiTask, AbiWaker, C_MAGIC, record, reply, sink,
};

type Layout = &'static TypeLayout;

/// What each type is for, in C's terms. A type without a line here is a mistake of this file.
const MEANINGS: &[(&str, &str)] = &[
    (
        "mercury_str",
        "Text on loan for the time of the call that it is passed to. UTF-8, without a\n   final zero.",
    ),
    (
        "mercury_bytes",
        "Bytes that their maker frees: whoever holds them calls release(owner) once, on any\n   thread, and never frees them otherwise. release is never null.",
    ),
    (
        "mercury_buffer",
        "A host's buffer on loan, to be filled. What was filled becomes mercury_bytes with\n   the same owner and release.",
    ),
    (
        "mercury_waker",
        "How whoever polls is told to poll again. Its functions take the address of the\n   waker itself; clone gives the address to keep, wake and drop give it up.",
    ),
    (
        "mercury_task",
        "Work in progress. poll: one thread at a time; a pending answer means that the waker\n   (or the clone that was kept of it) will be woken. cancel: a request, at any time before drop, from\n   any thread. drop: once, abandons what is left.",
    ),
    (
        "mercury_reply",
        "The answer to a request or a call. The body is a JSON document: the reply's, or with\n   MERCURY_ERROR a fault's.",
    ),
    ("mercury_object", "What a reply hands over."),
    (
        "mercury_sink",
        "Where a stream's bytes go. One call at a time. A chunk of one's own memory is sent\n   only after poll_ready; a filled loan at any time. finish: once, the reply's body is the receipt.",
    ),
    ("mercury_lend", "The answer to poll_buffer: a status, and with MERCURY_SINK_OK a buffer."),
    ("mercury_source", "Bytes to read at any position; several reads may be under way."),
    ("mercury_descriptor", "An open file, pipe or connection; whoever holds it closes it."),
    (
        "mercury_host",
        "The host, for the time of one request. call: any thread, several at once. drop: once.",
    ),
    ("mercury_call", "One request. The plugin owns all of it."),
    (
        "mercury_instance",
        "An initialised plugin. The host calls drop once, when no request is left.",
    ),
    ("mercury_log", "One record of the log: kind MERCURY_LOG_*, level 1 (error) to 5 (trace)."),
    (
        "mercury_c_host",
        "What a host shows a plugin for as long as the library is loaded. Read no field\n   beyond struct_size.",
    ),
    (
        "mercury_c_plugin",
        "What a plugin exports, as MERCURY_EXPORT. A host reads no field beyond\n   struct_size.",
    ),
    (
        "mercury_outcome_bytes",
        "A value, an error document, or (MERCURY_OUTCOME_PANICKED) an explanation why\n   there is neither.",
    ),
    ("mercury_outcome_instance", "See mercury_outcome_bytes."),
    ("mercury_poll_reply", "The answer to a poll."),
    ("mercury_poll_lend", "See mercury_poll_reply."),
    ("mercury_poll_uint8_t", "See mercury_poll_reply. The value is a MERCURY_SINK_* status."),
];

/// Writes the header.
struct Header {
    declared: String,
    defined: String,
    /// The names of the types that were defined.
    known: BTreeSet<String>,
    /// Types that only a signature needs, so that their definition can wait.
    later: Vec<Layout>,
}

fn header() -> String {
    let mut header = Header {
        declared: String::new(),
        defined: String::new(),
        known: BTreeSet::new(),
        later: vec![AbiCPlugin::LAYOUT],
    };
    while let Some(layout) = header.later.pop() {
        header.define(layout);
    }
    let mut text = String::from(PREAMBLE);
    let _ = writeln!(text, "#define MERCURY_MAGIC UINT64_C(0x{C_MAGIC:x})");
    let _ = writeln!(text, "#define MERCURY_ABI_MAJOR {ABI_MAJOR}u");
    let _ = writeln!(text, "#define MERCURY_ABI_MINOR {ABI_MINOR}u");
    let _ = writeln!(text, "#define MERCURY_EXPORT mercury_c_plugin_v{ABI_MAJOR}\n");
    for (name, value) in [
        ("OK", reply::status::OK),
        ("ERROR", reply::status::ERROR),
        ("REVOKED", reply::status::REVOKED),
        ("FINISHED", reply::status::FINISHED),
        ("SINK_OK", sink::OK),
        ("SINK_CLOSED", sink::CLOSED),
        ("SINK_TOO_LARGE", sink::TOO_LARGE),
        ("SINK_NOT_READY", sink::NOT_READY),
        ("LOG_EVENT", record::EVENT),
        ("LOG_OPEN", record::OPEN),
        ("LOG_CLOSE", record::CLOSE),
    ] {
        let _ = writeln!(text, "#define MERCURY_{name} {value}u");
    }
    text + "\n" + &header.declared + &header.defined + POSTAMBLE
}

const PREAMBLE: &str = "\
/* The boundary between a plugin and its host, for plugins in C.

   Generated from the types in plugin-sdk/src/abi; do not edit. `MERCURY_WRITE_HEADER=1 cargo test
   -p plugin-sdk c_header` writes it anew. mercury_blocking.h, beside this file, has functions that
   make it bearable: a plugin written with it blocks, and never sees a task or a waker.

   Neither side lets an exception of its language out of a function that the other one calls. */
#ifndef MERCURY_PLUGIN_H
#define MERCURY_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern \"C\" {
#endif

";

const POSTAMBLE: &str = "
#ifdef __cplusplus
}
#endif

#endif
";

fn fields(layout: Layout) -> Vec<TLField> {
    layout.get_fields().map(|fields| fields.iter().collect()).unwrap_or_default()
}

fn snake(camel: &str) -> String {
    let mut snake = String::new();
    for (at, letter) in camel.char_indices() {
        if at > 0 && letter.is_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

impl Header {
    /// The name of the type in C.
    fn name(&mut self, layout: Layout) -> String {
        match layout.data() {
            TLData::Primitive(primitive) => self.primitive(primitive, layout),
            _ => match layout.name() {
                "RStr" => "mercury_str".to_owned(),
                "AbiToken" => "const void *".to_owned(),
                name => {
                    let short = name.strip_prefix("Abi").expect("our types are named so");
                    let mut full = format!("mercury_{}", snake(short));
                    // The generic ones are named after their parameter, which is their first field.
                    if matches!(name, "AbiOutcome" | "AbiPoll") {
                        let parameter = self.name(fields(layout)[0].layout());
                        full += &format!("_{}", parameter.trim_start_matches("mercury_"));
                    }
                    full
                }
            },
        }
    }

    fn primitive(&mut self, primitive: TLPrimitive, layout: Layout) -> String {
        let pointee = |header: &mut Self| {
            // A pointer's description names one type, the one that it points to.
            let pointee = layout.shared_vars().type_layouts()[0]();
            if pointee.size() == 0 { "void".to_owned() } else { header.mentioned(pointee) }
        };
        match primitive {
            TLPrimitive::U8 => "uint8_t".to_owned(),
            TLPrimitive::U32 => "uint32_t".to_owned(),
            TLPrimitive::U64 => "uint64_t".to_owned(),
            TLPrimitive::I64 => "int64_t".to_owned(),
            TLPrimitive::Usize => "size_t".to_owned(),
            TLPrimitive::Bool => "bool".to_owned(),
            TLPrimitive::ConstPtr => format!("const {} *", pointee(self)),
            TLPrimitive::MutPtr => format!("{} *", pointee(self)),
            other => panic!("{other:?} has no name in C here"),
        }
    }

    /// The name of a type that needs no definition yet.
    fn mentioned(&mut self, layout: Layout) -> String {
        let name = self.name(layout);
        if name.starts_with("mercury_") && !self.known.contains(&name) {
            self.later.insert(0, layout);
        }
        name
    }

    /// A declaration of `name` as a value of the type, whose definition comes before.
    fn value(&mut self, layout: Layout, name: &str) -> String {
        self.define(layout);
        let of = self.name(layout);
        if of.ends_with('*') { format!("{of}{name}") } else { format!("{of} {name}") }
    }

    fn function(&mut self, function: &TLFunction, name: &str) -> String {
        let parameters: Vec<String> =
            function.param_type_layouts.iter().map(|layout| self.mentioned(layout())).collect();
        let returned = match function.return_type_layout() {
            Some(layout) => self.mentioned(layout()),
            None => "void".to_owned(),
        };
        let space = if returned.ends_with('*') { "" } else { " " };
        let parameters =
            if parameters.is_empty() { "void".to_owned() } else { parameters.join(", ") };
        format!("{returned}{space}(*{name})({parameters})")
    }

    fn field(&mut self, field: &TLField, name: &str) -> String {
        match field.function_range().iter().next() {
            Some(function) if field.is_function() => self.function(&function, name),
            _ => self.value(field.layout(), name),
        }
    }

    /// Defines the type, after whatever it holds by value.
    fn define(&mut self, layout: Layout) {
        let name = self.name(layout);
        if !name.starts_with("mercury_") || !self.known.insert(name.clone()) {
            return;
        }
        let (_, meaning) = MEANINGS
            .iter()
            .find(|(known, _)| *known == name)
            .unwrap_or_else(|| panic!("say what {name} is for"));
        let mut body = String::new();
        let mut constants = String::new();
        if name == "mercury_str" {
            body.push_str("  const uint8_t *ptr;\n  size_t len;\n");
        } else if let TLData::Enum(of) = layout.data() {
            let prefix = snake(layout.name().trim_start_matches("Abi")).to_uppercase();
            let mut payload = fields(layout).into_iter();
            body.push_str("  uint8_t tag;\n  union {\n");
            for (tag, variant) in of.variant_names_iter().enumerate() {
                let variant = snake(variant);
                let _ = writeln!(
                    constants,
                    "#define MERCURY_{prefix}_{} {tag}u",
                    variant.to_uppercase()
                );
                match of.field_count[tag] {
                    0 => {}
                    1 => {
                        let field = payload.next().expect("as many fields as are counted");
                        let declared = self.field(&field, &variant);
                        let _ = writeln!(body, "    {declared};");
                    }
                    more => panic!("a variant of {name} has {more} fields"),
                }
            }
            body.push_str("  } as;\n");
            // Each instance of a generic type has the same tags.
            if self.defined.contains(&constants) {
                constants.clear();
            }
        } else {
            for field in fields(layout) {
                let declared = self.field(&field, field.name());
                let _ = writeln!(body, "  {declared};");
            }
        }
        let _ = writeln!(self.declared, "typedef struct {name} {name};");
        let _ = write!(self.defined, "\n/* {meaning} */\n{constants}struct {name} {{\n{body}}};\n");
    }
}

fn committed() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("include/mercury_plugin.h")
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let generated = header();
    if std::env::var_os("MERCURY_WRITE_HEADER").is_some() {
        std::fs::write(committed(), &generated).expect("the header is writable");
    }
    let committed = std::fs::read_to_string(committed()).expect("the header is there");
    assert!(
        committed == generated,
        "include/mercury_plugin.h is not what the types say; MERCURY_WRITE_HEADER=1 writes it"
    );
}

/// What Rust's compiler says of a struct: its size, and the offset of each field.
macro_rules! laid_out {
    ($($rust:ty as $c:literal { $($field:ident),* $(,)? })*) => {
        vec![$(($c, <$rust as StableAbi>::LAYOUT, size_of::<$rust>(), vec![
            $((stringify!($field), offset_of!($rust, $field))),*
        ])),*]
    };
}

#[cfg_attr(miri, ignore = "it runs a C compiler")]
#[test]
fn sizes_and_offsets_in_c_are_those_in_rust() {
    let structs = laid_out! {
        AbiBytes as "mercury_bytes" { ptr, len, owner, release }
        AbiBuffer as "mercury_buffer" { ptr, capacity, owner, release }
        AbiWaker as "mercury_waker" { clone, wake, wake_by_ref, drop }
        AbiTask as "mercury_task" { data, poll, cancel, drop }
        AbiReply as "mercury_reply" { status, body, object }
        AbiSink as "mercury_sink" { data, poll_buffer, poll_ready, send, finish, drop }
        AbiLend as "mercury_lend" { status, buffer }
        AbiSource as "mercury_source" { data, len, read_at, drop }
        AbiDescriptor as "mercury_descriptor" { raw }
        AbiHost as "mercury_host" { data, call, drop }
        AbiCall as "mercury_call" { request, host, id }
        AbiInstance as "mercury_instance" { data, drop }
        AbiLog<'static> as "mercury_log" {
            kind, level, line, span, parent, call, name, target, file, message, fields
        }
        AbiCHost as "mercury_c_host" {
            magic, abi_major, abi_minor, struct_size, data, log_enabled, log
        }
        AbiCPlugin as "mercury_c_plugin" {
            magic, abi_major, abi_minor, struct_size, manifest, init, start
        }
    };
    // Of a tagged union C knows the size and where the union lies; its alignment puts it there.
    let unions = [
        ("mercury_object", size_of::<AbiObject>(), align_of::<AbiObject>()),
        ("mercury_outcome_bytes", size_of::<AbiOutcome<AbiBytes>>(), align_of::<AbiBytes>()),
        ("mercury_outcome_instance", size_of::<AbiOutcome<AbiInstance>>(), align_of::<AbiBytes>()),
        ("mercury_poll_reply", size_of::<AbiPoll<AbiReply>>(), align_of::<AbiBytes>()),
        ("mercury_poll_lend", size_of::<AbiPoll<AbiLend>>(), align_of::<AbiBytes>()),
        ("mercury_poll_uint8_t", size_of::<AbiPoll<u8>>(), align_of::<AbiBytes>()),
    ];
    let mut expected = Vec::new();
    let mut program =
        String::from("#include <stdio.h>\n#include \"mercury_plugin.h\"\nint main(void) {\n");
    let mut ask = |what: String, value: usize| {
        let _ = writeln!(program, "  printf(\"%zu\\n\", (size_t)({what}));");
        expected.push((what, value));
    };
    let word = size_of::<usize>();
    ask("sizeof(mercury_str)".to_owned(), size_of::<RStr<'static>>());
    ask("offsetof(mercury_str, len)".to_owned(), word);
    for (name, layout, size, offsets) in structs {
        let listed: Vec<&str> = offsets.iter().map(|(field, _)| *field).collect();
        let all: Vec<&str> = fields(layout).iter().map(TLField::name).collect();
        assert_eq!(listed, all, "{name}");
        ask(format!("sizeof({name})"), size);
        for (field, offset) in offsets {
            ask(format!("offsetof({name}, {field})"), offset);
        }
    }
    for (name, size, align) in unions {
        ask(format!("sizeof({name})"), size);
        ask(format!("offsetof({name}, tag)"), 0);
        ask(format!("offsetof({name}, as)"), align);
    }
    program.push_str("  return 0;\n}\n");

    let directory = std::env::temp_dir().join(format!("mercury-header-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a scratch directory");
    let (source, built) = (directory.join("layout.c"), directory.join("layout"));
    std::fs::write(&source, program).expect("the scratch directory is writable");
    let include = committed().parent().expect("it is in a directory").to_owned();
    let compiled = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .args([include.as_os_str(), "-o".as_ref(), built.as_os_str(), source.as_os_str()])
        .output()
        .expect("there is a C compiler");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let said = Command::new(&built).output().expect("it runs");
    let said: Vec<usize> = String::from_utf8_lossy(&said.stdout)
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    let _ = std::fs::remove_dir_all(&directory);
    assert_eq!(said.len(), expected.len());
    for ((what, rust), c) in expected.into_iter().zip(said) {
        assert_eq!(c, rust, "{what}");
    }
}
