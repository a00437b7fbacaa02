"""The source keeps to the layout: import ranks, single assignments, modules and scripts that say what they are for."""

from __future__ import annotations

import ast
import inspect
import re
from collections import Counter
from graphlib import CycleError, TopologicalSorter

import queue_system
from queue_system import errors
from tests.kit.source import ROOT, SRC, Module, Place, imported_module, load_modules

MODULES = load_modules()
SCRIPTS = sorted((SRC / "queue_system/broker/scripts").glob("*.lua"))
LIBRARY = sorted((SRC / "queue_system/broker/scripts/lib").glob("*.lua"))

# A folder or module directly under queue_system imports only from lower ranks. Equal ranks do not import each other.
ROOT_RANK = 10
RANKS = {
    "errors": 0,
    "clock": 0,
    "forking": 0,
    "interrupts": 0,
    "loop": 0,
    "logs": 0,
    "validation": 1,
    "resilience": 2,
    "tracebacks": 2,
    "imports": 2,
    "model": 3,
    "broker": 4,
    "metrics": 3,
    "config": 5,
    "client": 6,
    "inspection": 7,
    "execution": 8,
    "maintenance": 8,
    "manager": 9,
    "worker": 9,
    "dead_letters": 9,
    "": ROOT_RANK,  # queue_system itself
    "monitoring": 11,
    "tracing": 11,
    "web": 11,
    "testing": 11,
    "supervision": 12,
    "dashboard": 12,
    "cli": 13,
    "__main__": 14,
}

# "module -> imported name": the reason why a function must do the import itself.
FUNCTION_IMPORTS_ALLOWED: dict[str, str] = {
    "queue_system.loop -> uvloop": "an optional extra",
    "queue_system.supervision.observing -> queue_system.monitoring.prometheus": "an optional extra",
    "queue_system.supervision.observing -> queue_system.monitoring.probes.ProbeServer": "an optional extra",
    "queue_system.supervision.observing -> queue_system.monitoring.probes.create_app": "an optional extra",
    "queue_system.supervision.reload -> watchfiles": "an optional extra",
    "queue_system.__main__ -> queue_system.cli.app.run": "an optional extra",
    "queue_system.cli.dashboard -> queue_system.dashboard.serve": "an optional extra",
    "queue_system.cli.exporter -> queue_system.monitoring.exporter.export": "an optional extra",
}

# What a configuration has of the server: for applications that have used it, not for modules of ours.
OF_THE_SERVER = {
    *("keys", "commands", "transport", "endpoint", "breaker", "redis_client"),
    *("breaker_name", "beat_transport", "aio_pool", "outage", "maintenance_outage", "confirmable"),
}

# Who asks a configuration for its shard, and which one that would be, were there several. All others are handed it.
CHOICES_OF_A_SHARD = {
    "client.enqueue": "the one that a new operation's keys or id lead to",
    "client.lookup": "the one that an operation's id leads to",
    "client.dead_letters": "each, the newest of all first",
    "inspection.fleet": "each, added up",
    "inspection.workers": "each, one list",
    "manager": "each, added up",
    "execution.engine": "the one that an engine serves",
    "monitoring.probes": "each must answer",
    "supervision.usage": "each must be empty",
    "cli.bench": "any",
    "cli.checks": "each is examined",
    "cli.completion": "any",
    "cli.failover": "each in turn",
    "cli.purge": "each, added up",
    "testing.capture": "each, in the order of enqueueing",
    "testing.idle": "each must be idle",
    "testing.workers": "the one that an engine serves",
    "tracing": "any",
}

# What opens connections, or sends commands on them.
SPEAKING = {
    *(
        f"queue_system.broker.{name}"
        for name in ("aio", "aio_pool", "connecting", "connection", "embedded", "shard", "sync", "wire")
    ),
    *(f"queue_system.{name}" for name in ("config", "manager", "worker")),
}
# Other promises of a module's docstring, and the tests that hold them.
PROMISES = {
    "tests/unit/test_tracebacks.py": "Never raises, whatever an error's own methods do.",
    "test_data_never_becomes_code": "Never uses pickle.",
}

SCRIPT_LINES = 80
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle"}
FORBIDDEN_CALLS = {"eval", "exec"}


def unit_of(module: str) -> str:
    """The folder or module directly under queue_system that `module` belongs to; empty for queue_system itself."""
    return module.removeprefix("queue_system").removeprefix(".").partition(".")[0]


def place_of(module: Module, line: int) -> str:
    return f"{module.path.relative_to(ROOT)}:{line}"


def test_every_module_has_a_rank() -> None:
    """A new folder or module under queue_system is given a rank."""
    unranked = {unit_of(name) for name in MODULES if name != "utils"} - RANKS.keys()
    assert not unranked


def test_imports_go_only_to_lower_ranks() -> None:
    """A folder imports from lower ranks only, for types too; siblings of one rank do not import each other."""
    wrong = []
    for module in MODULES.values():
        if module.name == "utils":
            continue
        here = unit_of(module.name)
        for imported in module.imports:
            target = imported_module(imported.name, MODULES)
            if target is None:
                continue
            there = unit_of(target)
            if target == "utils" or (there != here and RANKS[there] >= RANKS[here]):
                wrong.append(f"{place_of(module, imported.line)} imports {imported.name}")
    assert not wrong


def test_what_is_shown_of_the_server_is_read_by_inspection_and_client_only() -> None:
    """The command line, the dashboard, the exporters and the web helpers build no command of the queue's."""
    wrong = [
        place_of(module, node.lineno)
        for module in MODULES.values()
        if unit_of(module.name) in {"cli", "dashboard", "monitoring", "web"}
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and node.attr == "commands"
        and ast.unparse(node.value).endswith(("config", "self", "shard"))
    ]
    assert not wrong


def test_nobody_reaches_the_server_through_a_configuration() -> None:
    """Who needs the server is handed a shard: a configuration keeps these names for applications, not for us."""
    wrong = [
        f"{place_of(module, node.lineno)}: {ast.unparse(node)}"
        for module in MODULES.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr in OF_THE_SERVER and _is_a_configuration(node.value)
    ]
    assert not wrong


def test_a_shard_is_chosen_in_few_places() -> None:
    """Only modules of which it is known which shard they would choose, were there several, ask for one."""
    found = {
        module.name.removeprefix("queue_system.")
        for module in MODULES.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr in {"shard", "shards"} and _is_a_configuration(node.value)
    }
    assert found == CHOICES_OF_A_SHARD.keys()


def _is_a_configuration(node: ast.expr) -> bool:
    name = ast.unparse(node)
    return name.endswith("config") or name.startswith("QueueConfig(")


def test_stored_formats_are_taken_apart_in_the_model_only() -> None:
    """Bytes from the server are split by `model/`; the modules named here split what comes from elsewhere."""
    found = {
        module.name
        for module in MODULES.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"partition", "rpartition", "split", "rsplit"}
        and any(isinstance(given, ast.Constant) and isinstance(given.value, bytes) for given in node.args)
        and unit_of(module.name) != "model"
    }
    assert found == {
        "queue_system.broker.embedded_supervisor",  # replies of a server that is being started
        "queue_system.supervision.places",  # lines of child processes
        "queue_system.testing.resp",  # a proxy's bytes
    }


def test_a_module_that_never_talks_to_redis_imports_nothing_that_does() -> None:
    """What a module's docstring says it never does, a test holds: other promises of that form are not made there."""
    told = {name: ast.get_docstring(module.tree) or "" for name, module in MODULES.items()}
    silent = {name for name, text in told.items() if "Never talks to Redis." in text}
    wrong = [
        f"{place_of(MODULES[name], imported.line)} imports {imported.name}"
        for name in silent
        for imported in MODULES[name].imports
        if (imported.place is not Place.TYPES and imported.name.partition(".")[0] == "redis")
        or imported_module(imported.name, MODULES) in SPEAKING
    ]
    assert silent
    assert not wrong
    promises = {
        name: promise
        for name, text in told.items()
        for promise in re.findall(r"Never [^.]*\.", text)
        if promise not in {"Never talks to Redis.", *PROMISES.values()}
    }
    assert not promises


def test_utils_only_reexports_resilience() -> None:
    """`utils` imports from `queue_system.resilience` only and defines nothing."""
    utils = MODULES["utils"]
    ours = {name for imported in utils.imports if (name := imported_module(imported.name, MODULES))}
    assert {unit_of(name) for name in ours} == {"resilience"}
    assert not list(utils.functions())
    assert not [node for node in ast.walk(utils.tree) if isinstance(node, ast.ClassDef)]


def test_functions_do_not_import() -> None:
    """Imports stand at the top of a module, except those that the allow-list gives a reason for."""
    found = {
        f"{module.name} -> {imported.name}"
        for module in MODULES.values()
        for imported in module.imports
        if imported.place is Place.FUNCTION
    }
    assert found == FUNCTION_IMPORTS_ALLOWED.keys()


def test_imports_form_no_cycle() -> None:
    """No module needs, directly or through others, itself to be imported. Imports for types do not count."""
    graph = {
        module.name: {
            target
            for imported in module.imports
            if imported.place is not Place.TYPES and (target := imported_module(imported.name, MODULES))
        }
        for module in MODULES.values()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
    else:
        cycle = ""
    assert not cycle


def test_no_line_packs_several_assignments() -> None:
    """`a, b = 1, 2` is written as two lines, so that each value stands beside its name; a swap may stay."""
    packed = [
        f"{place_of(module, node.lineno)}: {ast.unparse(node)}"
        for module in MODULES.values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Assign) and _is_packed(node)
    ]
    assert not packed


def _is_packed(node: ast.Assign) -> bool:
    (target, *more), value = node.targets, node.value
    if more or not (isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)):
        return False
    names = {ast.unparse(name) for name in target.elts}
    read = {ast.unparse(part) for part in ast.walk(value) if isinstance(part, ast.expr)}
    return not names & read


def test_every_module_says_its_purpose() -> None:
    """Each module has a docstring."""
    silent = [name for name, module in MODULES.items() if not ast.get_docstring(module.tree)]
    assert not silent


def test_all_is_exact() -> None:
    """`queue_system.__all__` lists each public name of the package and no other, each once."""
    public = {
        name
        for name, value in vars(queue_system).items()
        if not name.startswith("_") and name != "annotations" and not inspect.ismodule(value)
    }
    listed = [name for name in queue_system.__all__ if name != "__version__"]
    assert sorted(listed) == sorted(public)


def test_all_holds_the_four_classes_and_every_error() -> None:
    """The four classes of the specification and the whole error tree can be imported from `queue_system`."""
    tree = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert {"QueueConfig", "QueueManager", "QueueWorker", "QueueRetryConfig"} | tree <= set(queue_system.__all__)


def test_scripts_have_their_headers() -> None:
    """Each Lua file starts with its purpose and says its KEYS, ARGV, Reply and Invariant."""
    assert SCRIPTS
    wrong = []
    for script in SCRIPTS:
        lines = script.read_text(encoding="utf-8").splitlines()
        if not lines or not re.match(r"--\s*\w", lines[0]) or re.match(r"--\s*(KEYS|ARGV|Reply|Invariant)", lines[0]):
            wrong.append(f"{script.name}: the first line does not say the purpose")
        header = []
        for line in lines:
            if not line.startswith("--"):
                break
            header.append(line)
        wrong += [
            f"{script.name}: no {word} in the header"
            for word in ("KEYS", "ARGV", "Reply", "Invariant")
            if not any(re.match(rf"--\s*{word}", line) for line in header)
        ]
    assert not wrong


def test_the_library_says_its_duty() -> None:
    """Each part of the library starts with its purpose and says its Invariant; each format has one owner."""
    assert LIBRARY
    wrong, owners = [], Counter[str]()
    for part in LIBRARY:
        header, _, _ = part.read_text(encoding="utf-8").partition("\n\n")
        if not re.match(r"-- [A-Z]", header) or "\n-- Invariant " not in header:
            wrong.append(part.name)
        owned = header.partition("-- Owns")[2].partition("-- Uses")[0].partition("-- Invariant")[0]
        owners.update(set(re.findall(r"`([\w:]+)`", owned)))
    assert not wrong
    assert [key for key, count in owners.items() if count > 1] == []


def test_scripts_keep_their_size() -> None:
    """A script, and a part of the library, has at most 80 lines."""
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in [*SCRIPTS, *LIBRARY]}
    assert {name: count for name, count in lines.items() if count > SCRIPT_LINES} == {}


def test_each_format_is_read_in_its_own_part() -> None:
    """No script spells out a key, a field or a pattern of what the library owns."""
    owned = re.compile(
        r"'(?:operation:|inflight:|ready:|wake:|answer:|change:|oversized:|dead:)|\bKEYS|operation_id|%a\+\)"
        r"|\.\. '(?:dedup|delayed|workers|metrics|waiters|registry|resting|incarnations)'"
    )
    wrong = [
        f"{script.name}:{number}"
        for script in SCRIPTS
        for number, line in enumerate(script.read_text(encoding="utf-8").splitlines(), 1)
        if owned.search(line.partition("--")[0])
    ]
    assert not wrong


def test_scripts_never_decode_what_they_move() -> None:
    """No Lua file uses cjson or cmsgpack: they change numbers and empty arrays."""
    wrong = [
        f"{script.name}:{number}"
        for script in [*SCRIPTS, *LIBRARY]
        for number, line in enumerate(script.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"\b(cjson|cmsgpack)\b", line.partition("--")[0])
    ]
    assert not wrong


def test_data_never_becomes_code() -> None:
    """Nothing in the source unpickles or evaluates."""
    wrong = []
    for module in MODULES.values():
        wrong += [
            f"{place_of(module, imported.line)} imports {imported.name}"
            for imported in module.imports
            if imported.name.partition(".")[0] in FORBIDDEN_MODULES
        ]
        wrong += [
            f"{place_of(module, node.lineno)} calls {node.func.id}"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS
        ]
    assert not wrong
