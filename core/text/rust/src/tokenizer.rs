//! Hugging Face tokenizers as they are in tokenizer.json: text to ids, ids to text, and flat tables of
//! every token for the C++ side.

use std::collections::HashSet;

use fancy_regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use tokenizers::tokenizer::{AddedVocabulary, Model, PreTokenizer};
use tokenizers::tokenizer::{OffsetReferential, OffsetType, PreTokenizedString, Token};
use tokenizers::{Decoder, NormalizedString};

use crate::{Failure, Outcome, Status};

pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    no_added: AddedVocabulary,
    unk: Option<u32>,
    split_patterns: Vec<Regex>,
    texts: Table,
    bytes: Table,
    flags: Vec<u8>,
    bytes_concatenate: bool,
}

/// Byte strings one after the other; `ends[i]` is where string i ends.
#[derive(Default)]
struct Table {
    data: Vec<u8>,
    ends: Vec<u32>,
}

impl Table {
    fn push(&mut self, item: &[u8]) {
        self.data.extend_from_slice(item);
        self.ends.push(self.data.len() as u32); // tokenizer.json is at most 64 MiB
    }
}

/// Views of the tables, as in bottega_text.h.
#[repr(C)]
pub struct Vocabulary {
    size: usize,
    texts: *const u8,
    text_ends: *const u32,
    bytes: *const u8,
    byte_ends: *const u32,
    flags: *const u8,
    bytes_concatenate: bool,
}

const FLAG_ADDED: u8 = 1;
const FLAG_SPECIAL: u8 = 2;

/// A piece longer than this gets a second look: see `check_patterns`.
const LONG_PIECE_BYTES: usize = 4096;

/// What we check in tokenizer.json ourselves: the crate takes a component of unknown type for any other
/// one whose fields fit, renumbers added tokens and ignores what it does not know.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<FileToken>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: FileModel,
}

#[derive(Deserialize)]
struct FileToken {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct FileModel {
    r#type: Option<String>,
    unk_token: Option<String>,
    unk_id: Option<u32>,
    dropout: Option<f32>,
}

const NORMALIZERS: &[&str] = &[
    "BertNormalizer",
    "Strip",
    "StripAccents",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Sequence",
    "Lowercase",
    "Nmt",
    "Precompiled",
    "Replace",
    "Prepend",
    "ByteLevel",
];
const PRE_TOKENIZERS: &[&str] = &[
    "BertPreTokenizer",
    "ByteLevel",
    "CharDelimiterSplit",
    "Delimiter",
    "Metaspace",
    "Whitespace",
    "Sequence",
    "Split",
    "Punctuation",
    "WhitespaceSplit",
    "Digits",
    "UnicodeScripts",
    "FixedLength",
];
const POST_PROCESSORS: &[&str] =
    &["RobertaProcessing", "BertProcessing", "ByteLevel", "TemplateProcessing", "Sequence"];
const DECODERS: &[&str] = &[
    "BPEDecoder",
    "ByteLevel",
    "WordPiece",
    "Metaspace",
    "CTC",
    "Sequence",
    "Replace",
    "Fuse",
    "Strip",
    "ByteFallback",
];

fn refused(message: impl std::fmt::Display) -> Failure {
    Failure::new(Status::Refused, format!("tokenizer.json: {message}"))
}

/// Every component in `value`, nested `Sequence`s opened.
fn components<'a>(value: &'a Option<Value>, out: &mut Vec<&'a Value>) {
    fn walk<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
        out.push(value);
        for key in ["normalizers", "pretokenizers", "processors", "decoders"] {
            for child in value.get(key).and_then(Value::as_array).into_iter().flatten() {
                walk(child, out);
            }
        }
    }
    if let Some(value) = value {
        walk(value, out);
    }
}

fn check_types(field: &str, value: &Option<Value>, known: &[&str]) -> Outcome<()> {
    let mut all = Vec::new();
    components(value, &mut all);
    for component in all {
        match component.get("type").and_then(Value::as_str) {
            Some(name) if known.contains(&name) => {}
            Some(name) => return Err(refused(format!("{field}: unknown type '{name}'"))),
            None => return Err(refused(format!("{field}: a component without a type"))),
        }
    }
    Ok(())
}

fn check_file(file: &File) -> Outcome<()> {
    check_types("normalizer", &file.normalizer, NORMALIZERS)?;
    check_types("pre_tokenizer", &file.pre_tokenizer, PRE_TOKENIZERS)?;
    check_types("post_processor", &file.post_processor, POST_PROCESSORS)?;
    check_types("decoder", &file.decoder, DECODERS)?;
    if let Some(name) = &file.model.r#type {
        if !["BPE", "WordPiece", "WordLevel", "Unigram"].contains(&name.as_str()) {
            return Err(refused(format!("model: unknown type '{name}'")));
        }
    }
    if file.model.dropout.is_some_and(|p| p != 0.0) {
        return Err(refused("model.dropout: a random tokenizer cannot serve"));
    }
    Ok(())
}

/// The regular expressions of `Split` components, compiled as the crate compiles them.
fn split_patterns(file: &File) -> Outcome<Vec<Regex>> {
    let mut all = Vec::new();
    components(&file.pre_tokenizer, &mut all);
    all.iter()
        .filter_map(|c| c.get("pattern")?.get("Regex")?.as_str())
        .map(|p| Regex::new(p).map_err(|e| refused(format!("pre_tokenizer: Split pattern: {e}"))))
        .collect()
}

/// Decoding is the concatenation of the tokens' bytes if it is ByteLevel and nothing else.
fn is_byte_level(decoder: &Option<Value>) -> bool {
    let mut all = Vec::new();
    components(decoder, &mut all);
    let types: Vec<_> = all.iter().filter_map(|c| c["type"].as_str()).collect();
    types.iter().filter(|t| **t == "ByteLevel").count() == 1
        && types.iter().all(|t| ["ByteLevel", "Sequence", "Fuse"].contains(t))
}

/// GPT-2's printable stand-in for a byte, back to the byte.
fn byte_of(c: char) -> Option<u8> {
    match c as u32 {
        c @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => Some(c as u8),
        c @ 0x100..=0x120 => Some((c - 0x100) as u8), // 0x00 ..= 0x20
        c @ 0x121..=0x142 => Some((c - 0x121 + 0x7F) as u8), // 0x7F ..= 0xA0
        0x143 => Some(0xAD),
        _ => None,
    }
}

impl Tokenizer {
    pub fn load(json: &[u8]) -> Outcome<Self> {
        let file: File = serde_json::from_slice(json).map_err(refused)?;
        check_file(&file)?;
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(refused)?;
        // transformers sets both per call and leaves them off; a served prompt is never cut or padded.
        inner.with_truncation(None).map_err(refused)?;
        inner.with_padding(None);
        let unk = match &file.model.unk_token {
            Some(token) => inner.token_to_id(token),
            None => file.model.unk_id,
        };
        let mut loaded = Tokenizer {
            no_added: AddedVocabulary::new(),
            unk,
            split_patterns: split_patterns(&file)?,
            texts: Table::default(),
            bytes: Table::default(),
            flags: Vec::new(),
            bytes_concatenate: is_byte_level(&file.decoder),
            inner,
        };
        loaded.check_added(&file)?;
        loaded.fill_tables()?;
        Ok(loaded)
    }

    /// The crate gives an added token another id without a word if the file's does not suit it.
    fn check_added(&self, file: &File) -> Outcome<()> {
        let mut seen = HashSet::new();
        for token in &file.added_tokens {
            if !seen.insert(&token.content) {
                return Err(refused(format!("added_tokens: '{}' twice", token.content)));
            }
            match self.inner.token_to_id(&token.content) {
                Some(id) if id == token.id => {}
                _ => {
                    let FileToken { id, content } = token;
                    let message =
                        format!("added_tokens: '{content}' cannot have id {id}: ids have a gap or collide");
                    return Err(refused(message));
                }
            }
        }
        Ok(())
    }

    fn fill_tables(&mut self) -> Outcome<()> {
        let vocabulary = self.inner.get_vocab(true);
        let mut texts: Vec<Option<String>> = vec![None; vocabulary.len()];
        for (text, id) in vocabulary {
            match texts.get_mut(id as usize) {
                None => {
                    let message = format!("'{text}' has id {id}, past the number of tokens: ids have a gap");
                    return Err(refused(message));
                }
                Some(Some(other)) => return Err(refused(format!("'{text}' and '{other}' share id {id}"))),
                Some(slot) => *slot = Some(text),
            }
        }
        let added = self.inner.get_added_tokens_decoder();
        for (id, text) in texts.iter().flatten().enumerate() {
            self.texts.push(text.as_bytes());
            let decoded = self.inner.id_to_token(id as u32).unwrap_or_default();
            let bytes = self.bytes_of(&decoded);
            self.bytes.push(&bytes);
            self.flags.push(match added.get(&(id as u32)) {
                None => 0,
                Some(token) => FLAG_ADDED | if token.special { FLAG_SPECIAL } else { 0 },
            });
        }
        if self.flags.is_empty() {
            return Err(refused("the vocabulary is empty"));
        }
        Ok(())
    }

    /// What a token adds to a text that already has another token before it.
    fn bytes_of(&self, text: &str) -> Vec<u8> {
        if self.bytes_concatenate {
            let mapped: Option<Vec<u8>> = text.chars().map(byte_of).collect();
            return mapped.unwrap_or_else(|| text.as_bytes().to_vec());
        }
        if text.len() == 6 && text.starts_with("<0x") && text.ends_with('>') {
            if let Ok(byte) = u8::from_str_radix(&text[3..5], 16) {
                return vec![byte];
            }
        }
        let Some(decoder) = self.inner.get_decoder() else {
            return text.as_bytes().to_vec();
        };
        let decode = |tokens: &[&str]| {
            decoder.decode(tokens.iter().map(|t| t.to_string()).collect()).unwrap_or_default()
        };
        let before = decode(&["a"]);
        match decode(&["a", text]).strip_prefix(&before) {
            Some(rest) => rest.as_bytes().to_vec(),
            None => text.as_bytes().to_vec(),
        }
    }

    pub fn vocabulary(&self) -> Vocabulary {
        Vocabulary {
            size: self.flags.len(),
            texts: self.texts.data.as_ptr(),
            text_ends: self.texts.ends.as_ptr(),
            bytes: self.bytes.data.as_ptr(),
            byte_ends: self.bytes.ends.as_ptr(),
            flags: self.flags.as_ptr(),
            bytes_concatenate: self.bytes_concatenate,
        }
    }

    pub fn id_of(&self, token: &str) -> Option<i32> {
        self.inner.token_to_id(token).map(|id| id as i32)
    }

    /// `parse_special` false: added tokens in the text, special or not, are plain characters.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Outcome<Vec<i32>> {
        let fail = |e: tokenizers::Error| Failure::new(Status::Invalid, format!("cannot tokenize: {e}"));
        let added = if parse_special { self.inner.get_added_vocabulary() } else { &self.no_added };
        let mut pieces = added.extract_and_normalize(self.inner.get_normalizer(), text);
        let check = !self.split_patterns.is_empty() && text.len() > LONG_PIECE_BYTES;
        let before = check.then(|| pieces.clone());
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces).map_err(fail)?;
        }
        if let Some(before) = before {
            self.check_patterns(&before, &pieces)?;
        }
        pieces.tokenize(|piece| self.tokenize_piece(piece, parse_special)).map_err(fail)?;
        let encoding = pieces.into_encoding(None, 0, OffsetType::None).map_err(fail)?;
        let encoding = self.inner.post_process(encoding, None, add_special).map_err(fail)?;
        Ok(encoding.get_ids().iter().map(|id| *id as i32).collect())
    }

    fn tokenize_piece(
        &self,
        piece: &NormalizedString,
        parse_special: bool,
    ) -> tokenizers::Result<Vec<Token>> {
        let model = self.inner.get_model();
        let tokens = model.tokenize(piece.get())?;
        let control = |t: &Token| self.flags[t.id as usize] & FLAG_ADDED != 0 && Some(t.id) != self.unk;
        if parse_special || !tokens.iter().any(control) {
            return Ok(tokens);
        }
        // A model may find an added token by itself, where it is also in the model's vocabulary. In plain
        // text it is spelled out instead, a character at a time.
        let mut spelled = Vec::new();
        for token in tokens {
            if !control(&token) {
                spelled.push(token);
                continue;
            }
            for c in token.value.chars() {
                spelled.extend(model.tokenize(c.encode_utf8(&mut [0; 4]))?);
            }
        }
        Ok(spelled)
    }

    /// The crate's regex engine gives up after a million steps back and the rest of the text then
    /// silently becomes one piece, that is, other ids than Hugging Face's. Such a rest is long: only then
    /// are the patterns run again to see whether one gave up.
    fn check_patterns(&self, before: &PreTokenizedString, after: &PreTokenizedString) -> Outcome<()> {
        let splits = |p: &PreTokenizedString| -> Vec<String> {
            let all = p.get_splits(OffsetReferential::Normalized, OffsetType::None);
            all.iter().filter(|s| s.0.len() > LONG_PIECE_BYTES).map(|s| s.0.to_string()).collect()
        };
        if splits(after).is_empty() {
            return Ok(());
        }
        for text in splits(before) {
            for pattern in &self.split_patterns {
                if let Some(Err(error)) = pattern.find_iter(&text).find(|m| m.is_err()) {
                    let message = format!("cannot tokenize: the tokenizer's split pattern gave up: {error}");
                    return Err(Failure::new(Status::Limit, message));
                }
            }
        }
        Ok(())
    }

    pub fn decode(&self, ids: &[i32], skip_special: bool) -> Outcome<String> {
        let size = self.flags.len();
        if let Some(id) = ids.iter().find(|id| **id < 0 || **id as usize >= size) {
            let message = format!("token id {id} is outside the vocabulary of {size}");
            return Err(Failure::new(Status::Invalid, message));
        }
        let ids: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
        self.inner
            .decode(&ids, skip_special)
            .map_err(|e| Failure::new(Status::Invalid, format!("cannot decode: {e}")))
    }
}
