"""Every diagnostic there is, one line each. A code never changes its meaning.

AC0xx syntax · AC1xx names · AC2xx arguments · AC3xx structure · AC4xx hub, files and backbones ·
AC5xx training · AC6xx spec.yaml and data · AC9xx limits
"""

from __future__ import annotations

from adaptcompose.diagnostics.diagnostic import Code

# syntax
AC001 = Code("AC001", "unterminated string", "close it with {quote}")
AC002 = Code("AC002", "expected a revision after `@`", "a branch, tag or commit: user/repo@main")
AC003 = Code("AC003", "unexpected character `{char}`", "quote paths with unusual characters")
AC004 = Code("AC004", "`{bracket}` is never closed", "add `{closing}`")
AC005 = Code("AC005", "missing comma between arguments", "put `,` before `{word}`")
AC006 = Code("AC006", "argument names are lower case: `{name}`", "write `{lower}`")
AC007 = Code(
    "AC007",
    "expected a weight, a number, after `:`",
    "weights look like average(a:0.3, b:0.7); names of slots use `=`",
)
AC008 = Code("AC008", "unmatched `{bracket}`", "remove it, or open one before it")
AC009 = Code("AC009", "{what}", "start with an adapter or a block")
AC010 = Code("AC010", "expected a block or modifier after `{mark}`", "for example stack(lang=sw)")
AC011 = Code("AC011", "expected `|` or the end", "separate stages with `|`")
AC012 = Code(
    "AC012",
    "operators are lower case and take their arguments in `( )`",
    "write {remedy}",
)
AC013 = Code("AC013", "expected {expected}, got {got}")
AC014 = Code("AC014", "`{text}` lacks a digit beside its point", "write {remedy}")
AC015 = Code(
    "AC015", "`{text}` is no range", "two whole numbers and two points: 0..4 is five layers"
)
AC016 = Code("AC016", "unknown escape `{escape}` in a string", "write \\\\{char}")
AC017 = Code("AC017", "the byte {byte} is not UTF-8", "save it as UTF-8")
# names
AC101 = Code("AC101", "unknown operator `{name}`", "operators: {known}")
AC102 = Code("AC102", "`{name}` is bound twice", "give one of them another name")
AC103 = Code("AC103", "unknown adapter `{name}`", "user/repo names an adapter of the hub")
AC104 = Code("AC104", "`{name}` is never used", "use it or remove it", "warning")
AC105 = Code("AC105", "`{pattern}` matches nothing", "`{space}/` has: {known}")
AC106 = Code("AC106", "no space `{space}` in the catalogue", "spaces: {known}")
AC107 = Code(
    "AC107",
    "`{name}` has variants for {known}, and this backbone has no canonical name",
    "say which it is: backbone: {{model: ./dir, as: {example}}}; in a command --as {example}",
)
AC108 = Code("AC108", "`{name}` is defined by itself: {cycle}", "break the circle")
AC109 = Code("AC109", "`{name}` is no reference: {why}")
# arguments
AC201 = Code("AC201", "`{operator}` has no argument `{name}`", "arguments: {known}")
AC202 = Code("AC202", "`{name}` is given twice", "remove one of them")
AC203 = Code(
    "AC203", "`{operator}` takes named arguments only", "for example {operator}({example}=…)"
)
AC204 = Code("AC204", "`{name}` of `{operator}` must be {expected}", "got {got}")
AC205 = Code("AC205", "expected an adapter or a block, got {got}")
AC206 = Code("AC206", "`{operator}` takes no weights", "only average and merge are weighted")
AC207 = Code("AC207", "give every branch a weight, or none", "a:0.3, b:0.7")
AC208 = Code(
    "AC208",
    "weights of `{operator}` sum to {total}, not 1",
    "change them, or pass normalize=true",
)
AC209 = Code("AC209", "`{name}` of `{operator}` must be {expected}", "got {got}")
AC210 = Code(
    "AC210", "`!` takes something away from the globs before it, and `{operator}` has none"
)
AC211 = Code(
    "AC211", "`{operator}` takes no names: `{name}`", "write the adapters one after another"
)
AC212 = Code(
    "AC212",
    "no activation `{name}`",
    "for example relu, gelu, swish, tanh: as transformers has them",
)
# structure
AC301 = Code(
    "AC301",
    "`{operator}` modifies the blocks to its left, and there are none",
    "put it after a block",
)
AC302 = Code(
    "AC302",
    "`{modifier}` is a modifier, and `{operator}` takes adapters and blocks",
    "pipe it: <block> | {modifier}(…)",
)
AC303 = Code("AC303", "`{operator}` needs at least {least} adapters, got {count}")
AC304 = Code("AC304", "`{pattern}` matches {count} adapter, and `{operator}` needs {least}")
AC305 = Code("AC305", "`{operator}` cannot hold a `{inner}`", "fuse(a, b, c), or stack them")
AC306 = Code(
    "AC306",
    "`{operator}` combines {what} of adapters, and `{method}` has none that it can",
    "average(…) or merge(…)",
)
AC307 = Code("AC307", "members of `{operator}` must sit at the same sites: {detail}")
AC308 = Code("AC308", "`{operator}` has several outputs and must come last")
AC309 = Code(
    "AC309",
    "branches of `{operator}` need names: they name the outputs",
    "{operator}(ner=a, pos=b)",
)
AC310 = Code("AC310", "no slot `{name}` in this composition", "slots: {known}")
AC311 = Code("AC311", "`{operator}` leaves no layer: the backbone has {layers}", "use `none`")
AC312 = Code("AC312", "layers {wanted} do not exist: the backbone has 0..{last}")
AC313 = Code("AC313", "`merge` needs equal shapes: {detail}")
AC314 = Code(
    "AC314",
    "fused adapters must read the same state: {detail}",
    "fuse adapters of one placement, or stack them",
)
AC315 = Code(
    "AC315",
    "members of `fuse` bring different parts at the embeddings: {detail}",
    "stack(lang=…) | fuse(…)",
)
AC316 = Code(
    "AC316",
    "virtual {kind} of one stack must treat positions alike: {detail}",
    "use adapters of one convention: positions=kept or positions=shifted",
)
AC317 = Code(
    "AC317",
    "`{name}` normalises a weight, and what it stands on at {site} depends on example or token",
    "put it first in its stack",
)
AC318 = Code(
    "AC318", "a mean of invertible adapters has no inverse, which the language-model head needs"
)
AC319 = Code("AC319", "`{name}` cannot be scaled by {by}", "by=0 removes it, by=1 keeps it")
AC320 = Code(
    "AC320",
    "`{name}` replaces the backbone's residual and norm, so nothing can follow it",
    "put it last in its stack",
)
AC321 = Code("AC321", "`none` cannot stand in `{operator}`", "leave it out")
AC322 = Code("AC322", "`{slot}` names more than one slot here", "give the slots different names")
AC323 = Code(
    "AC323",
    "`{name}` is a setting of the fusion that `load` names",
    "leave it out, or make a new fusion",
)
AC324 = Code(
    "AC324",
    "`split` leaves out what `{name}` has at the embeddings or the head, which all tokens share",
    "put it around: stack({name}, split(…))",
    "warning",
)
# hub, files and backbones
AC401 = Code(
    "AC401", "no repository `{repo}` on the hub {hub}", "check the name, or: hub: <folder>"
)
AC402 = Code("AC402", "`{repo}` has no revision `{revision}`", "latest: {known}")
AC403 = Code(
    "AC403",
    "`{name}` was trained on {base}; this backbone is {backbone}",
    "set backbone, or train one",
)
AC404 = Code("AC404", "`{repo}` is private or gated", "hf auth login, then accept its terms")
AC405 = Code(
    "AC405",
    "`{name}` is not in the cache and offline mode is on",
    "run once online",
)
AC406 = Code("AC406", "`{name}` holds {what}, no adapter", "use it as backbone:")
AC407 = Code("AC407", "`{name}` uses {method}, which adaptcompose cannot run", "supported: {known}")
AC408 = Code("AC408", "`{name}`: {detail}", "use an adapter of this backbone")
AC409 = Code(
    "AC409",
    "`{name}` has only pickled weights; read with the tensors-only reader",
    None,
    "warning",
)
AC410 = Code("AC410", "{lock} is out of date: {what} changed", "adaptcompose lock <spec>")
AC411 = Code("AC411", "`{file}` of `{repo}` does not match its recorded hash", "fetch it again")
AC412 = Code("AC412", "no folder `{path}`", "paths are relative to {root}")
AC413 = Code("AC413", "`{file}` cannot be read: {why}", "fetch or publish it again")
AC414 = Code(
    "AC414",
    "`{file}` holds more than tensors ({what}) and is not opened",
    "ask its author for safetensors",
)
AC415 = Code("AC415", "publishing to `{repo}` failed: {why}", "the hub is unchanged; try again")
AC416 = Code("AC416", "`{name}` brings a head of kind {kind}, which adaptcompose cannot run")
AC417 = Code(
    "AC417", "the fusion of `{name}` covers no {site}", "load one that covers it, or drop it"
)
AC418 = Code("AC418", "`{name}` lacks {missing}", "the file is incomplete; fetch it again")
AC419 = Code("AC419", "the hub {hub} cannot be reached: {why}", "try again, or set hub: <folder>")
AC420 = Code("AC420", "`{name}` is no repository name", "user/repo, letters, digits, `.`, `_`, `-`")
AC421 = Code("AC421", "the card `{name}` cannot be read: {why}", "correct hub_cards/{name}.md")
AC422 = Code("AC422", "`{path}` exists already", "name another folder, or remove it")
AC423 = Code("AC423", "`{path}` holds the run of {other}", "give one of the two specs another name")
AC424 = Code(
    "AC424",
    "`{name}` runs on {backbone}, which was a folder and is not here",
    "say where it is: --backbone <folder>, or load(…, backbone=…)",
)
AC425 = Code("AC425", "`{path}` cannot be written: {why}", "make room, or choose another place")
AC426 = Code("AC426", "`{name}` holds no composition", "adapters are used by name in an expression")
AC430 = Code(
    "AC430",
    "the hub {hub} does not accept the token: {why}",
    "hf auth login, or set HF_TOKEN to one that is valid",
)
AC431 = Code(
    "AC431",
    "`{repo}` was changed by somebody else while this was pushed",
    "nothing was pushed; look at it with --dry-run, then push again",
)
AC432 = Code(
    "AC432",
    "`{repo}` would be published without a licence",
    "--license apache-2.0, or license: in the `publish:` of its spec",
)
AC433 = Code("AC433", "the hub {hub} has no pull requests", "push to a branch: --revision <branch>")
AC434 = Code(
    "AC434",
    "`hf` cannot be extended here: {why}",
    "adaptcompose does the same by its own name",
)
# training and heads
AC501 = Code(
    "AC501",
    "{names} would be used untrained",
    "add `train:`, or load trained weights",
)
AC502 = Code("AC502", "every part is frozen: nothing to train", "train.update: one of {known}")
AC503 = Code(
    "AC503",
    "`{name}` brings a head of {found}, the task has {wanted}",
    "task.head: new",
)
AC504 = Code(
    "AC504",
    "no layout for backbone type `{type}`",
    "supported: {known}",
)
AC505 = Code("AC505", "`rows` {problem}", "one name per row of the batch, or None: {known}")
AC506 = Code(
    "AC506",
    "the fusion of `{name}` was trained with {trained}, here it gets {given}",
    None,
    "warning",
)
AC507 = Code("AC507", "`{name}` is frozen by the expression and trained by train.update")
AC508 = Code("AC508", "this composition has no head, and {what} needs one", "set task.head")
AC509 = Code("AC509", "the composition was detached and no longer runs", "compose it again")
AC510 = Code(
    "AC510",
    "labels cannot be given to the backbone's own head under `route` and `parallel`",
    "compute the loss from the logits, or give every branch a head",
)
AC511 = Code(
    "AC511",
    "`{operator}` cannot be exported: which composition a row has is decided outside of the graph",
    "export its branches one by one",
)
AC512 = Code(
    "AC512",
    "`{operator}` gives several outputs, and {what} needs one",
    "name one of its branches: {known}",
)
AC513 = Code(
    "AC513",
    "labels of `parallel` are given by the names of its branches, not as {got}",
    "for example labels={{{known}: …}}",
)
AC517 = Code(
    "AC517",
    "tokens and virtual tokens need {needed} positions, and the backbone has {most}",
    "shorten the input or what stands in front of it, or: positions=kept",
)
AC518 = Code(
    "AC518",
    "the lowest {layers} layers cannot be cached; what can: {trunk}",
    "cache layers below the first in which something is trained",
)
AC519 = Code(
    "AC519",
    "the {choices} choices of an example are rows behind each other, and {problem}",
    "give every example {choices} rows",
)
# spec.yaml and data
AC601 = Code("AC601", "`{section}` has no key `{name}`", "keys: {known}")
AC602 = Code("AC602", "`{name}` appears twice", "remove one of them")
AC603 = Code("AC603", "`${{{name}}}` is only known inside an item with `each: {{{name}: …}}`")
AC604 = Code("AC604", "`{name}` is not supported yet", "remove it; supported: {known}")
AC605 = Code("AC605", "`{name}` must be {expected}", "got {got}")
AC606 = Code("AC606", "`{section}` needs the key `{name}`", "add {name}:")
AC607 = Code("AC607", "no file `{path}`", "paths are relative to {root}")
AC608 = Code("AC608", "{file}:{line}: {why}")
AC609 = Code("AC609", "unknown label `{label}` in {place}", "task.labels: {known}")
AC610 = Code("AC610", "unknown data `{name}`", "data: {known}")
AC611 = Code("AC611", "not valid YAML: {why}")
AC613 = Code("AC613", "`{section}` takes `{first}` or `{second}`, not both", "remove one of them")
AC614 = Code(
    "AC614",
    "`{label}` starts an entity in {place} ({count} such); it is counted as `B-`",
    None,
    "warning",
)
AC615 = Code(
    "AC615", "Parquet files need pyarrow to be read", "pip install 'adaptcompose[parquet]'"
)
# limits
AC901 = Code("AC901", "the expression is {size} long; the limit is {limit}", "use let, or globs")
AC902 = Code("AC902", "brackets are nested {depth} deep; the limit is {limit}", "use let")
AC903 = Code("AC903", "`{text}` is too large", "numbers have at most 18 digits")
AC904 = Code("AC904", "the composition {what}; the limit is {limit}", "compose fewer")
AC905 = Code("AC905", "{count} more problems are not shown", "correct these first", "note")
AC999 = Code("AC999", "internal error: {why}", "ADAPTCOMPOSE_DEBUG=1 shows the traceback")

CODES = {value.id: value for value in list(globals().values()) if isinstance(value, Code)}
