"""The parameters of `@app.function` and `@app.cls`, in one place. Imported with `potluck`, so it loads nothing slow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypedDict

from potluck.errors import InvalidError
from potluck.gpus import checked_gpus
from potluck.image import Image
from potluck.mounts import checked_mounts
from potluck.network import asked_network
from potluck.retries import Retries, checked
from potluck.schedule import Schedule
from potluck.secret import Secret
from potluck.sharing import ALONE, Sharing
from potluck.tiers import checked_tier
from potluck.verify import Verify, checked_verify

if TYPE_CHECKING:
    from potluck.volume import Volume
    from potluck.wire.common import Limit

# A function that runs longer than a day should checkpoint; as Modal's limit.
TIMEOUT_S_MAX = 24 * 3600
# More workers than any mesh has.
CONTAINERS_MAX = 10_000
# As Modal's limits, in seconds: a worker that is kept idle for longer takes room from others.
SCALEDOWN_S_MIN, SCALEDOWN_S_MAX = 2, 20 * 60
# Limits on what calls may use; longer than anything runs, and few enough digits for whoever writes them.
LIMITS, LIMIT_MAX = ("max_gpu_seconds", "max_cost"), 10**9
Most = tuple[float | None, float | None]
# As Modal's: 3 TiB in MiB.
DISK_MIB_MAX = 3 << 20
# Labels travel in each call; an owner sets a handful.
LABELS_MAX = 16


class CallSettings(TypedDict, total=False):
    """What `with_options` can change, for one way to call a function.

    `cpu` is in cores and `memory` in MiB; a pair is Modal's (request, limit), of which the limit counts. `gpu` is a
    model, "any", "H100:2", "any:>=16GB" or a list of these in order of preference; `timeout` is in seconds for each
    input. `secrets` become environment variables, as those of `env` do, but are in no log and no status.
    `volumes` are mounted at their paths. `max_containers` bounds the workers over all machines, `buffer_containers`
    keeps so many more than are busy, and `scaledown_window` is how many seconds an idle one is kept. `region` is one or
    several; Potluck's own are `labels`, all of which a machine must have, `sandbox`, the weakest that will do, such as
    "gvisor", and two limits on what all calls of one run may use, on all machines together: `max_gpu_seconds` of
    workers, and `max_cost`, in seconds times the weight of the machine (the node's setting `gpu_weights`).
    `verify` says how results of peers that nobody here trusts are checked: "quorum:2of3", "adaptive" or a `Verify`.
    """

    cpu: float | tuple[float, float] | None
    memory: int | tuple[int, int] | None
    gpu: str | list[str] | None
    env: Mapping[str, str | None] | None
    secrets: Collection[Secret] | None
    retries: int | Retries | None
    timeout: float
    max_containers: int | None
    buffer_containers: int | None
    scaledown_window: int | None
    region: str | Sequence[str] | None
    labels: Mapping[str, str] | None
    sandbox: str
    volumes: Mapping[str | PurePosixPath, Volume] | None
    max_gpu_seconds: float | None
    max_cost: float | None
    verify: Verify | str | None
    cloud: object
    routing_region: object


class ClassSettings(CallSettings, total=False):
    """What `@app.cls` takes.

    There is no network, unless `outbound_domain_allowlist` names hosts ("example.org", "*.example.org"), or
    `block_network=False` asks for all public ones. `ephemeral_disk` is the room for files in MiB, `startup_timeout` the
    seconds for imports and `enter` methods. `min_containers` workers are kept while the app runs;
    `single_use_containers` gives each input a worker of its own. `enable_memory_snapshot` lets what was loaded be kept
    between workers. `serialized` sends the code by value, `include_source=False` not at all, since the image has it.
    """

    image: Image | None
    serialized: bool
    include_source: bool | None
    ephemeral_disk: int | None
    startup_timeout: int | None
    min_containers: int | None
    single_use_containers: bool
    enable_memory_snapshot: bool
    block_network: bool | None
    outbound_domain_allowlist: Sequence[str] | None
    restrict_modal_access: bool
    network_file_systems: object
    proxy: object
    nonpreemptible: object
    i6pn: object
    experimental_options: object


class ServerSettings(TypedDict, total=False):
    """What `@app.server` takes of `CallSettings` and `ClassSettings`."""

    cpu: float | tuple[float, float] | None
    memory: int | tuple[int, int] | None
    gpu: str | list[str] | None
    env: Mapping[str, str | None] | None
    secrets: Collection[Secret] | None
    image: Image | None
    serialized: bool
    include_source: bool | None
    ephemeral_disk: int | None
    min_containers: int | None
    max_containers: int | None
    buffer_containers: int | None
    scaledown_window: int | None
    enable_memory_snapshot: bool
    labels: Mapping[str, str] | None
    sandbox: str
    volumes: Mapping[str | PurePosixPath, Volume] | None
    cloud: object
    nonpreemptible: object
    proxy: object
    i6pn: object
    experimental_options: object


class FunctionSettings(ClassSettings, total=False):
    """What `@app.function` takes. `name` is the function's own name unless given; `is_generator` is found out. A
    deployed function runs by itself as its `schedule` says, `Cron` or `Period`."""

    name: str | None
    is_generator: bool | None
    schedule: Schedule | None


# What is refused unless it is left at a default that asks for nothing, and why.
REFUSED = {
    "network_file_systems": "there are none, as Modal itself advises against them",
    "cloud": "machines belong to people, not to clouds: use region= or labels= to choose among them",
    "routing_region": "calls go from your node straight to the machine that runs them",
    "proxy": "there are no static addresses: traffic leaves from the machine that runs the function",
    "nonpreemptible": "owners always take their machine back when they want it; inputs then run elsewhere",
    "i6pn": "functions cannot listen for each other: pass data through calls",
    "experimental_options": "there are none",
}
# Names that Modal had, and what it calls them now.
RENAMED = {
    "keep_warm": "min_containers=",
    "concurrency_limit": "max_containers=",
    "container_idle_timeout": "scaledown_window=",
    "allow_concurrent_inputs": "@potluck.concurrent(max_inputs=…) below it",
    "max_inputs": "single_use_containers=True",
    "secret": "secrets=[…]",
    "mounts": "image.add_local_dir(…)",
    "mount": "image.add_local_dir(…)",
    "shared_volumes": "volumes=",
    "interactive": "`potluck shell`",
    "checkpointing_enabled": "enable_memory_snapshot=",
    "_allow_background_volume_commits": "nothing: leave it out",
}


class Options:
    """Checked settings. `given` has those that were given; the rest have their defaults.

    Raises `InvalidError` for what cannot work. When pickled nothing is left of them: they stay with the caller.
    """

    def __init__(self, given: Mapping[str, Any], sharing: Sharing = ALONE) -> None:
        _check_names(given)
        self.given = {name: value for name, value in given.items() if value is not None}
        self.sharing = sharing
        get = self.given.get
        self.name: str | None = get("name")
        self.image: Image = get("image") or Image.local_python()
        self.serialized, self.include_source = bool(get("serialized")), get("include_source") is not False
        self.is_generator: bool | None = get("is_generator")
        self.gpu = checked_gpus(get("gpu"))
        self.cpu = _amount("cpu", get("cpu"), 0.001, 1024, "cores, such as 0.5 or 4")
        self.memory = _amount("memory", get("memory"), 1, 1 << 24, "mebibytes, such as 2048")
        self.ephemeral_disk = _within("ephemeral_disk", get("ephemeral_disk"), 1, DISK_MIB_MAX, "mebibytes")
        self.timeout = _within("timeout", get("timeout", 300), 1, TIMEOUT_S_MAX, "seconds")
        self.startup_timeout = _within("startup_timeout", get("startup_timeout"), 1, TIMEOUT_S_MAX, "seconds")
        self.retries = checked(get("retries"))
        self.schedule = _schedule(get("schedule"))
        self.sandbox = checked_tier(get("sandbox", ""), self.gpu)
        self.network = asked_network(get("block_network"), get("outbound_domain_allowlist"))
        self.env = tuple(sorted((key, value) for key, value in get("env", {}).items() if value is not None))
        self.secrets = _secrets(get("secrets"))
        self.volumes = checked_mounts(get("volumes"))
        self.max_gpu_seconds = checked_most("max_gpu_seconds", get("max_gpu_seconds"))
        self.max_cost = checked_most("max_cost", get("max_cost"))
        self.verify = checked_verify(get("verify"))
        self.region = _regions(get("region"))
        self.labels = _labels(get("labels"))
        self.snapshot, self.single_use = bool(get("enable_memory_snapshot")), bool(get("single_use_containers"))
        self.scaling = checked_scaling(self.given)
        if self.single_use and (sharing.max_inputs > 1 or sharing.batch_size):
            raise InvalidError(
                "single_use_containers=True gives each input a worker of its own.",
                fix="Leave it out, or @potluck.concurrent() and @potluck.batched().",
            )

    def changed(self, given: Mapping[str, Any]) -> Options:
        """With some of them replaced."""
        return Options(self.given | {name: value for name, value in given.items() if value is not None}, self.sharing)

    def shared(self, sharing: Sharing) -> Options:
        """With other numbers of inputs at once."""
        return self if sharing == self.sharing else Options(self.given, sharing)

    def __reduce__(self) -> tuple[Any, ...]:
        return Options, ({},)


def _check_names(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name in RENAMED:
            fix = f"Use {RENAMED[name]}."
            raise InvalidError(f"There is no parameter {name}= any more.", why="Modal has renamed it", fix=fix)
        if name in REFUSED and value:
            raise InvalidError(f"{name}={value!r:.100} is not possible.", why=REFUSED[name], fix=f"Leave {name} out.")
        if name not in KNOWN:
            raise InvalidError(f"There is no parameter {name}=.", fix=_nearest(name))


def _nearest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, KNOWN, 1)
    return f"Did you mean {near[0]}=?" if near else f"There are: {', '.join(sorted(KNOWN - REFUSED.keys()))}."


KNOWN = frozenset(FunctionSettings.__annotations__)


def _within(name: str, value: Any, least: float, most: float, unit: str) -> Any:
    """Raises `InvalidError` unless `value` is None or a number in the range."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidError(f"{name}={value!r} is out of range.", fix=f"Give {unit}, from {least:g} to {most:g}.")
    return value


def checked_most(name: str, value: float | None) -> float | None:
    """Raises `InvalidError` for what is no limit."""
    found: float | None = _within(name, value, 0.001, LIMIT_MAX, "seconds")
    return found


def limited(most: Most, name: str = "") -> Limit | None:
    """Raises `InvalidError` for what is no limit."""
    from potluck.wire.common import Limit

    seconds, cost = (checked_most(setting, each) for setting, each in zip(LIMITS, most, strict=True))
    if seconds is None and cost is None:
        return None
    return Limit(name, round((seconds or 0) * 1e6), round((cost or 0) * 1e6))


def _amount(name: str, value: Any, least: float, most: float, unit: str) -> Any:
    """One number, or Modal's (request, limit): what a function may use must be there, so the limit counts."""
    if not isinstance(value, tuple):
        return _within(name, value, least, most, unit)
    request, limit = value if len(value) == 2 else (None, None)
    if request is None or limit is None or not least <= request <= limit:
        raise InvalidError(f"{name}={value!r} is no pair of request and limit.", fix=f"Give one number of {unit}.")
    return _within(name, limit, least, most, unit)


def _secrets(given: Any) -> tuple[Secret, ...]:
    secrets = (given,) if isinstance(given, Secret) else tuple(given or ())
    if not all(isinstance(each, Secret) for each in secrets):
        raise InvalidError("secrets= takes a list of secrets.", fix="For example [potluck.Secret.from_dotenv()].")
    return secrets


def _schedule(given: Any) -> Schedule | None:
    if given is not None and not isinstance(given, Schedule):
        raise InvalidError(
            f"schedule={given!r:.100} is no schedule.", fix='Write potluck.Cron("0 6 * * *") or potluck.Period(days=1).'
        )
    return given


def _regions(given: Any) -> tuple[str, ...]:
    regions = (given,) if isinstance(given, str) else tuple(given or ())
    if len(regions) > LABELS_MAX or not all(isinstance(each, str) and each for each in regions):
        raise InvalidError(f"region={given!r:.100} names no region.", fix=f"Give one name, or at most {LABELS_MAX}.")
    return regions


def _labels(given: Any) -> tuple[tuple[str, str], ...]:
    labels = dict(given or {})
    if len(labels) > LABELS_MAX or not all(isinstance(each, str) for pair in labels.items() for each in pair):
        raise InvalidError(f"labels={given!r:.100} cannot be looked for.", fix='Write them as {"disk": "fast"}.')
    return tuple(sorted(labels.items()))


def checked_scaling(given: Mapping[str, Any]) -> dict[str, int]:
    """`wire.Scaling`'s numbers by Modal's names. Raises `InvalidError`."""
    bounds = {
        "min_containers": (0, CONTAINERS_MAX, "a number of workers"),
        "max_containers": (1, CONTAINERS_MAX, "a number of workers"),
        "buffer_containers": (0, CONTAINERS_MAX, "a number of workers"),
        "scaledown_window": (SCALEDOWN_S_MIN, SCALEDOWN_S_MAX, "seconds"),
    }
    found = {name: _within(name, given[name], *bounds[name]) for name in bounds if given.get(name) is not None}
    if found.get("min_containers", 0) > found.get("max_containers", CONTAINERS_MAX):
        raise InvalidError("min_containers is more than max_containers.", fix="Raise one, or lower the other.")
    return found
