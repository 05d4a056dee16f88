"""All diagnostics. A code never changes its meaning.

AC0xx syntax · AC1xx names · AC2xx arguments · AC3xx structure · AC4xx hub, files and backbones ·
AC5xx training · AC6xx spec.yaml and data · AC9xx limits
"""

from __future__ import annotations

from adaptcompose.diagnostics.diagnostic import Code

# syntax
AC001 = Code("AC001", "unterminated string", "close it with `{quote}`")
AC002 = Code(
    "AC002",
    "expected a revision after `@`",
    "write a branch, tag or commit, as in `user/repo@main`",
)
AC003 = Code(
    "AC003", "unexpected character `{char}`", "put a path with unusual characters in quotes"
)
AC004 = Code("AC004", "`{bracket}` is never closed", "add `{closing}`")
AC005 = Code("AC005", "missing comma between arguments", "add `,` before `{word}`")
AC006 = Code("AC006", "argument name `{name}` must be in lower case", "write `{lower}`")
AC007 = Code(
    "AC007",
    "expected a weight (a number) after `:`",
    "write weights as in `average(a:0.3, b:0.7)`; to name a slot, use `=`",
)
AC008 = Code("AC008", "unmatched `{bracket}`", "remove it, or open a bracket before it")
AC009 = Code(
    "AC009",
    "expected an adapter or a block, but {problem}",
    "start with an adapter or a block, as in `stack(lang=sw)`",
)
AC010 = Code(
    "AC010",
    "expected a block or modifier after `{mark}`",
    "add one, as in `stack(lang=sw)`, or remove `{mark}`",
)
AC011 = Code("AC011", "expected `|` or the end of the expression", "separate stages with `|`")
AC012 = Code(
    "AC012",
    "operators are written in lower case, with their arguments in `( )`",
    "write `{remedy}`",
)
AC013 = Code("AC013", "expected {expected}, found {got}")
AC014 = Code(
    "AC014", "`{text}` needs a digit on both sides of its decimal point", "write `{remedy}`"
)
AC015 = Code(
    "AC015",
    "`{text}` is not a range",
    "write two whole numbers with two dots between them: `0..4` is five layers",
)
AC016 = Code("AC016", "unknown escape `{escape}` in a string", "write `\\\\{char}`")
AC017 = Code("AC017", "byte {byte} is not valid UTF-8", "save the file as UTF-8")
# names
AC101 = Code("AC101", "unknown operator or method `{name}`", "use one of {known}")
AC102 = Code("AC102", "`{name}` is defined twice", "give one of them another name")
AC103 = Code("AC103", "unknown adapter `{name}`", "write `user/repo` for an adapter of the Hub")
AC104 = Code("AC104", "`{name}` is never used", "use it or remove it", "warning")
AC105 = Code("AC105", "no adapter matches `{pattern}`", "`{space}/` contains {known}")
AC106 = Code("AC106", "the catalogue has no space `{space}`", "use one of {known}")
AC107 = Code(
    "AC107",
    "`{name}` has variants for {known}, but this backbone has no name on the Hub",
    "add its name: `backbone: {{model: ./dir, as: {example}}}` or `--as {example}`",
)
AC108 = Code(
    "AC108", "`{name}` is defined in terms of itself: {cycle}", "remove one of these references"
)
AC109 = Code("AC109", "`{name}` is not a valid reference: {why}")
# arguments
AC201 = Code("AC201", "`{operator}` has no argument `{name}`", "use one of {known}")
AC202 = Code("AC202", "`{name}` is given twice", "remove one of them")
AC203 = Code(
    "AC203",
    "the arguments of `{operator}` need names",
    "write `{operator}({example}=…)`",
)
AC204 = Code("AC204", "`{name}` of `{operator}` must be {expected}, but is {got}")
AC205 = Code("AC205", "expected an adapter or a block, found {got}")
AC206 = Code(
    "AC206",
    "`{operator}` does not take weights",
    "remove the weight; only `average` and `merge` take weights",
)
AC207 = Code(
    "AC207",
    "some branches have a weight and others do not",
    "give every branch a weight, as in `a:0.3, b:0.7`, or none",
)
AC208 = Code(
    "AC208",
    "the weights of `{operator}` sum to {total}, not 1",
    "change the weights, or add `normalize=true`",
)
AC209 = Code("AC209", "`{name}` of `{operator}` must be {expected}, but is {got}")
AC210 = Code(
    "AC210",
    "`!` excludes adapters from the globs to its left, but `{operator}` has no glob there",
    "put a glob before it, as in `fuse(glue/*, !glue/rte)`, or remove it",
)
AC211 = Code(
    "AC211",
    "the members of `{operator}` cannot have names, but one is called `{name}`",
    "remove `{name}=`",
)
AC212 = Code(
    "AC212",
    "unknown activation `{name}`",
    "use one that transformers has, such as relu, gelu, swish or tanh",
)
# structure
AC301 = Code(
    "AC301",
    "`{operator}` modifies the blocks to its left, but there are none",
    "put it after a block, as in `stack(lang=sw) | {operator}(…)`",
)
AC302 = Code(
    "AC302",
    "`{operator}` takes adapters and blocks, but `{modifier}` is a modifier",
    "pipe a block into it: `<block> | {modifier}(…)`",
)
AC303 = Code("AC303", "`{operator}` needs at least {least}, but has {count}")
AC304 = Code("AC304", "`{operator}` needs at least {least}, but `{pattern}` matches only {count}")
AC305 = Code(
    "AC305",
    "`{operator}` cannot contain `{inner}`",
    "fuse all members at once, `fuse(a, b, c)`, or stack one fusion on the other",
)
AC306 = Code(
    "AC306",
    "`{operator}` combines the {what} of adapters, but `{method}` has none that it can combine",
    "use `average(…)` or `merge(…)`",
)
AC307 = Code(
    "AC307",
    "the members of `{operator}` must adapt the same sites: {detail}",
    "combine what they compute instead: `average(a:0.7, b:0.3)`",
)
AC308 = Code(
    "AC308",
    "`{operator}` has several outputs, so no other block can contain it",
    "make it the outermost block, and put the other blocks into its branches",
)
AC309 = Code(
    "AC309",
    "the branches of `{operator}` need names, which become the names of its outputs",
    "write `{operator}(ner=a, pos=b)`",
)
AC310 = Code("AC310", "this composition has no slot `{name}`", "use one of {known}")
AC311 = Code(
    "AC311",
    "`{operator}` leaves no layer with an adapter: the backbone has {layers}",
    "keep at least one layer, or write `none` for a composition without adapters",
)
AC312 = Code("AC312", "`layers` selects {wanted}, but the backbone only has layers 0..{last}")
AC313 = Code("AC313", "the members of `merge` must have equal shapes: {detail}")
AC314 = Code(
    "AC314",
    "the members of `fuse` must read the same hidden state: {detail}",
    "fuse adapters with the same placement, or stack them",
)
AC315 = Code(
    "AC315",
    "the members of `fuse` have different parts at the embeddings: {detail}",
    "put the part at the embeddings before the fusion: `stack(lang=…) | fuse(…)`",
)
AC316 = Code(
    "AC316",
    "virtual {kind} in one stack must count positions in the same way: {detail}",
    "use `positions=kept` for all of them, or `positions=shifted` for all of them",
)
AC317 = Code(
    "AC317",
    "`{name}` renormalises the weight of {site}, but an earlier block makes that weight depend on"
    " the input",
    "move `{name}` to the front of its stack",
)
AC318 = Code(
    "AC318",
    "an average of invertible adapters has no inverse, but the language-model head needs one",
    "use one of the invertible adapters, or stack them",
)
AC319 = Code(
    "AC319",
    "`{name}` cannot be scaled by {by}, because it does more than add to a hidden state",
    "use `by=0` to remove it or `by=1` to keep it",
)
AC320 = Code(
    "AC320",
    "`{name}` replaces the residual and norm of the backbone, so nothing can follow it",
    "move it to the end of its stack",
)
AC321 = Code("AC321", "`{operator}` cannot contain `none`", "remove it")
AC322 = Code("AC322", "two slots are called `{slot}`", "give each slot its own name")
AC323 = Code(
    "AC323",
    "`{name}` cannot be combined with `load`: the loaded fusion has its own settings",
    "remove `{name}`, or remove `load` to make a new fusion",
)
AC324 = Code(
    "AC324",
    "`split` ignores what `{name}` has at the embeddings or the head, which all tokens share",
    "put it outside the split: `stack({name}, split(…))`",
    "warning",
)
# hub, files and backbones
AC401 = Code(
    "AC401",
    "the hub {hub} has no repository `{repo}`",
    "check the name, or choose another hub with `hub:` or `--hub`",
)
AC402 = Code("AC402", "`{repo}` has no revision `{revision}`", "use one that exists: {known}")
AC403 = Code(
    "AC403",
    "`{name}` was trained on {base}, but this backbone is {backbone}",
    "change the backbone, or train an adapter for this one",
)
AC404 = Code(
    "AC404",
    "`{repo}` is private or gated, and you have no access",
    "run `hf auth login`, then accept the terms of the repository",
    cause="hub",
)
AC405 = Code(
    "AC405",
    "`{name}` is not in the cache, and offline mode is on",
    "run the command once with offline mode off",
    cause="hub",
)
AC406 = Code("AC406", "`{name}` contains {what}, not {wanted}")
AC407 = Code(
    "AC407",
    "`{name}` uses {method}, which adaptcompose cannot run",
    "use an adapter of a supported kind: {known}",
)
AC408 = Code(
    "AC408",
    "`{name}` does not fit this backbone: {detail}",
    "use an adapter that was trained on this backbone",
)
AC409 = Code(
    "AC409",
    "`{name}` has only pickled weights, which are read as tensors without running any code",
    None,
    "warning",
)
AC410 = Code("AC410", "{lock} is out of date: {what} changed", "run `adaptcompose lock <spec>`")
AC411 = Code("AC411", "`{file}` of `{repo}` does not match its recorded hash", "fetch it again")
AC412 = Code(
    "AC412", "the folder `{path}` does not exist", "check the path, which is relative to {root}"
)
AC413 = Code("AC413", "cannot read `{file}`: {why}", "fetch it again, or publish it again")
AC414 = Code(
    "AC414",
    "`{file}` was not opened, because it contains more than tensors ({what})",
    "ask its author to publish safetensors",
)
AC415 = Code(
    "AC415", "publishing to `{repo}` failed: {why}", "try again; the hub has not been changed"
)
AC416 = Code("AC416", "`{name}` has a head of kind {kind}, which adaptcompose cannot run")
AC417 = Code(
    "AC417",
    "the fusion `{name}` has no weights for {site}",
    "load a fusion that covers this site, or drop the layer",
)
AC418 = Code(
    "AC418", "`{name}` is incomplete: {missing} is missing", "fetch it again, or publish it again"
)
AC419 = Code(
    "AC419",
    "cannot reach the hub {hub}: {why}",
    "try again, or use a folder as the hub",
    cause="hub",
)
AC420 = Code(
    "AC420",
    "`{name}` is not a valid repository name",
    "write `user/repo`, with letters, digits, `.`, `_` and `-`",
)
AC421 = Code("AC421", "cannot read the card `{name}`: {why}", "correct hub_cards/{name}.md")
AC422 = Code("AC422", "`{path}` already exists", "choose another name, or remove it")
AC423 = Code(
    "AC423",
    "`{path}` already contains the run of {other}",
    "give one of the two specs another `name`",
)
AC424 = Code(
    "AC424",
    "the backbone of `{name}` is not on this machine: {backbone}",
    "give its folder: `--backbone <folder>`, or `load(…, backbone=…)`",
)
AC425 = Code("AC425", "cannot write `{path}`: {why}", "free some space, or choose another place")
AC426 = Code(
    "AC426",
    "`{name}` is not a composition",
    "to use an adapter, name it in an expression: `stack({name})`",
)
AC430 = Code(
    "AC430",
    "the hub {hub} rejected your token: {why}",
    "run `hf auth login`, or set `HF_TOKEN` to a valid token",
    cause="hub",
)
AC431 = Code(
    "AC431",
    "somebody else changed `{repo}` during this push",
    "look at the changes with `--dry-run`, then push again; nothing was pushed",
    cause="hub",
)
AC432 = Code(
    "AC432",
    "`{repo}` would be published without a licence",
    "add `--license apache-2.0`, or `license:` under `publish:` in the spec",
)
AC433 = Code(
    "AC433",
    "the hub {hub} does not support pull requests",
    "push to a branch: `--revision <branch>`",
    cause="hub",
)
AC434 = Code(
    "AC434", "cannot register `hf compose`: {why}", "use the command `adaptcompose` instead"
)
# training and heads
AC501 = Code(
    "AC501",
    "{names} would be used untrained",
    "add `train:`, or load trained weights",
)
AC502 = Code(
    "AC502",
    "there is nothing to train, because every part is frozen",
    "list parts to train in `train.update`: {known}",
)
AC503 = Code(
    "AC503",
    "`{name}` has a head of {found}, but the task needs {wanted}",
    "set `task.head` to `new`",
)
AC504 = Code(
    "AC504",
    "backbones of type `{type}` are not supported",
    "use one of a supported type: {known}",
)
AC505 = Code("AC505", "`rows` {problem}", "pass one name per row of the batch, or None: {known}")
AC506 = Code(
    "AC506",
    "the fusion `{name}` was trained with {trained}, but here it combines {given}",
    None,
    "warning",
)
AC507 = Code(
    "AC507",
    "the expression freezes `{name}`, but `train.update` trains it",
    "remove it from `train.update`, or remove its `freeze`",
)
AC508 = Code("AC508", "this composition has no head, but {what} needs one", "set `task.head`")
AC509 = Code("AC509", "the composition was detached and can no longer run", "compose it again")
AC510 = Code(
    "AC510",
    "the backbone's own head does not accept labels under `route` and `parallel`",
    "compute the loss from the logits, or give every branch a head",
)
AC511 = Code(
    "AC511",
    "`{operator}` cannot be exported, because Python code outside the graph chooses the"
    " composition of each row",
    "export its branches one by one",
)
AC512 = Code(
    "AC512",
    "`{operator}` has several outputs, but {what} needs one",
    "use one of its branches: {known}",
)
AC513 = Code(
    "AC513",
    "the labels of `parallel` must be given by branch name, not as {got}",
    'pass a mapping: `labels={{"{known}": …}}`',
)
AC517 = Code(
    "AC517",
    "the input and its virtual tokens need {needed} positions, but the backbone has {most}",
    "shorten the input or the virtual tokens, or use `positions=kept`",
)
AC518 = Code(
    "AC518",
    "cannot cache the {layers}; possible: {trunk}",
    "cache only layers below the first one that is trained",
)
AC519 = Code(
    "AC519",
    "each example needs {choices} consecutive rows, one per choice, but {problem}",
    "pass {choices} rows for every example",
)
AC520 = Code(
    "AC520",
    "the layer of `{path}` does more than add its output to its input: it uses `{function}` on it",
    "transformers {version} is newer than what adaptcompose knows: install an earlier release",
)
# spec.yaml and data
AC601 = Code("AC601", "`{section}` has no key `{name}`", "use one of {known}")
AC602 = Code("AC602", "`{name}` appears twice", "remove one of them")
AC603 = Code(
    "AC603",
    "`${{{name}}}` is not defined here",
    "add `each: {{{name}: …}}` to the same item",
)
AC604 = Code("AC604", "`{name}` is not supported yet", "remove it, or use one of {known}")
AC605 = Code("AC605", "`{name}` must be {expected}, but is {got}")
AC606 = Code("AC606", "`{section}` needs the key `{name}`", "add `{name}:`")
AC607 = Code(
    "AC607", "the file `{path}` does not exist", "check the path, which is relative to {root}"
)
AC608 = Code("AC608", "{file}:{line}: {why}")
AC609 = Code(
    "AC609",
    "unknown label `{label}` in {place}",
    "correct it, or add it to `task.labels`: {known}",
)
AC610 = Code("AC610", "unknown data `{name}`", "use one of {known}")
AC611 = Code("AC611", "invalid YAML: {why}")
AC613 = Code(
    "AC613", "`{section}` takes either `{first}` or `{second}`, not both", "remove one of them"
)
AC614 = Code(
    "AC614",
    "{place}: `{label}` starts an entity without `B-`, and is scored as a start ({count} in total)",
    None,
    "warning",
)
AC615 = Code(
    "AC615", "reading Parquet files needs pyarrow", "run `pip install 'adaptcompose[parquet]'`"
)
# limits
AC901 = Code(
    "AC901", "the expression is {size} long; the limit is {limit}", "shorten it with `let` or globs"
)
AC902 = Code(
    "AC902",
    "brackets are nested {depth} deep; the limit is {limit}",
    "name an inner part with `let`",
)
AC903 = Code("AC903", "`{text}` is too large", "write a number with at most 18 digits")
AC904 = Code("AC904", "the composition {what}; the limit is {limit}", "combine fewer blocks")
AC905 = Code("AC905", "{count} not shown", "correct the problems above first", "note")
AC999 = Code(
    "AC999",
    "internal error: {why}",
    "set `ADAPTCOMPOSE_DEBUG=1` to see the traceback, and report it",
    cause="internal",
)

CODES = {value.id: value for value in list(globals().values()) if isinstance(value, Code)}
