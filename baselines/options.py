"""Options: how a decoder or a model declares them, checks them and offers them to a grid.

A class declares an option once, as an annotated attribute, and builds itself in `setup`:

    @decoder("laplace")
    class LaplaceDecoder(Decoder):
        initial_log_scale: float = -1.0

        def setup(self) -> None:
            self.log_scale = nn.Parameter(torch.tensor(self.initial_log_scale))

`LaplaceDecoder(initial_log_scale=0)` checks the value. A grid asks for it by name, through the
`Spec` that is made of the declaration. No torch in here, so that a grid is checked before torch is
imported: the specs of the bundled classes are read from their source.
"""

from collections.abc import Callable, Collection, Mapping
from types import ModuleType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
)
from weakref import WeakKeyDictionary

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PydanticSchemaGenerationError,
    StrictInt,
    TypeAdapter,
    ValidationError,
    create_model,
    model_validator,
)

from baselines import decoders, models
from baselines.declarations import (
    REQUIRED,
    Declaration,
    DeclarationError,
    from_class,
    from_source,
    taken,
)
from baselines.levels import Levels as Levels
from baselines.registration import register
from baselines.sizes import Sizes, fewest, of_size

# -- the vocabulary of options ---------------------------------------------------------------------

Positive = Annotated[FiniteFloat, Field(gt=0)]
Fraction = Annotated[FiniteFloat, Field(ge=0, le=1)]
Decay = Annotated[FiniteFloat, Field(ge=0, lt=1)]
"""What a running average keeps of itself at each step."""
FiniteVarianceDf = Annotated[FiniteFloat, Field(gt=2)]
"""Degrees of freedom of a Student-t that has a variance."""
MOST = 1_000_000
"""The largest size or count: beyond what any of them is of use for, and before memory runs out."""
Size = Annotated[int, Field(strict=True, ge=1, le=MOST)]
Count = Annotated[int, Field(strict=True, ge=0, le=MOST)]
"""Strict, because `true` and `"20"` are no numbers of anything."""
Link = Literal["sigmoid", "identity"]
"""What maps a network's output to the mean image."""
Kind = Literal["decoder", "model"]
Over = Literal["batch", "image", "channel", "pixel"]
"""What shares one σ: everything in a batch, or each image, each channel, each pixel."""


class _Given:
    """Marks an argument that the harness gives and no grid can set."""


T = TypeVar("T")
Given = Annotated[T, _Given]


# -- configured classes ----------------------------------------------------------------------------


@dataclass_transform(kw_only_default=True, eq_default=False)
class Configured:
    """A class whose constructor takes its annotated attributes as keywords and checks them.

    An attribute with an underscore, a `ClassVar`, or one without annotation is no keyword. A
    subclass adds keywords, or changes a default by assigning it.

    Raises:
        ValueError: a value that its annotation does not allow, or an annotation that is no type of
            an option.
        TypeError: an unknown keyword or a missing one.

    >>> class Blur(Configured):
    ...     width: Size = 3
    ...     def setup(self):
    ...         self.taps = 2 * self.width + 1
    >>> Blur(width=5).taps
    11
    >>> Blur(width=0)
    Traceback (most recent call last):
    ValueError: Blur: width: input should be greater than or equal to 1, not 0
    """

    kind: ClassVar[Kind]
    """What it may be registered as."""

    def __init__(self, **arguments: Any) -> None:
        checked = _checked(type(self), arguments)
        super().__init__()
        for name, value in checked.items():
            setattr(self, name, value)
        self.setup()
        # A module with an option's name would be hidden by the option's default.
        if lost := checked.keys() - vars(self).keys():
            raise TypeError(
                f"{type(self).__name__}: `setup` makes a module of the "
                f"option's name '{min(lost)}'; choose another name for it"
            )

    def setup(self) -> None:
        """Make parameters, buffers and layers; the constructor's keywords are attributes by now."""


_Arguments = dict[str, tuple[TypeAdapter[Any], Any]]
_known: WeakKeyDictionary[type, _Arguments] = WeakKeyDictionary()


def _arguments(kind: type) -> _Arguments:
    """What checks each argument of a class, and its default."""
    if kind in _known:
        return _known[kind]
    config = ConfigDict(allow_inf_nan=False)
    found: _Arguments = {}
    for name, (annotation, default) in from_class(kind, Configured, ()).arguments.items():
        try:
            found[name] = TypeAdapter[Any](annotation, config=config), default
        except PydanticSchemaGenerationError:
            raise DeclarationError(
                f"{kind.__name__}: {name}: {annotation} is no type of an option; annotate an "
                "attribute that is none in `setup`, or not at all"
            ) from None
    _known[kind] = found
    return found


def _checked(kind: type[Configured], given: dict[str, Any]) -> dict[str, Any]:
    """The values of all arguments in their order, given or default."""
    possible = _arguments(kind)
    try:
        given = of_size(getattr(kind, "sizes", {}), given)
    except ValidationError as error:
        raise _refused(kind, "size", given["size"], error) from None
    if unknown := given.keys() - possible.keys():
        raise TypeError(
            f"{kind.__name__} has no option '{min(unknown)}'; possible: {', '.join(possible)}"
        )
    checked = {}
    for name, (adapter, default) in possible.items():
        value = given.get(name, default)
        if value is REQUIRED:
            raise TypeError(f"{kind.__name__}: '{name}' is missing")
        try:
            checked[name] = adapter.validate_python(value)
        except ValidationError as error:
            raise _refused(kind, name, value, error) from None
    if fault := _disorder(checked):
        raise ValueError(f"{kind.__name__}: {fault}")
    return checked


def _refused(kind: type, name: str, value: Any, error: ValidationError) -> ValueError:
    problems = dict.fromkeys(problem["msg"] for problem in error.errors())
    message = " or ".join(text[0].lower() + text[1:] for text in problems)
    return ValueError(f"{kind.__name__}: {name}: {message}, not {value!r}")


def _disorder(options: Mapping[str, Any]) -> str:
    """What is wrong where an option `min_…` is not below its `max_…`; empty for nothing."""
    for name, low in options.items():
        high = options.get(name.replace("min_", "max_", 1)) if name.startswith("min_") else None
        if low is not None and high is not None and low >= high:
            return f"{name} {low:g} must be below {name.replace('min_', 'max_', 1)} {high:g}"
    return ""


# -- specs -----------------------------------------------------------------------------------------


class Spec(BaseModel):
    """A name and its options, frozen: what a grid asks for and a run records.

    >>> spec = DECODERS["beta"](beta=0.5)
    >>> spec.name, spec.options
    ('beta', {'link': 'sigmoid', 'beta': 0.5})
    >>> spec.summary()
    'β-VAE: Gaussian with σ² = β/2, β chosen by hand or tuned.'
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )
    implementation: ClassVar[str]
    """`module:Class`."""
    sizes: ClassVar[Sizes] = {}
    source: ClassVar[str | None] = None
    """sha256 (hex) of the code that brought the implementation, where that is a user's own."""

    name: str

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if fault := _disorder(self.__dict__):
            raise ValueError(fault)
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of the implementation."""
        return self.model_dump(exclude={"name"})

    @property
    def changed(self) -> dict[str, Any]:
        """The fewest options that give this spec; a size stands for those that it sets."""
        fields = type(self).model_fields
        return fewest(
            {key: field.default for key, field in fields.items()}, self.sizes, self.options
        )

    @classmethod
    def summary(cls) -> str:
        """The first line of the class's documentation."""
        return (cls.__doc__ or "").strip().splitlines()[0]


class DecoderSpec(Spec):
    """A p(x|z) family; the class attributes are those of its `Decoder`.

    >>> DECODERS["categorical"].is_discrete, DECODERS["faithful"].detached_outputs
    (True, 1)
    """

    is_likelihood: ClassVar[bool]
    is_discrete: ClassVar[bool]
    detached_outputs: ClassVar[int]

    def __reduce__(self) -> Any:
        # The class is made at run time: pickle finds it by its registered name.
        return _by_name, ("decoder", self.model_dump())


class ModelSpec(Spec):
    """A network family; channels and resolution come from the data.

    >>> MODELS["conv_vae"](width=8).options
    {'latent': 20, 'width': 8}
    >>> spec = MODELS["hierarchical"](size="vdvae", output_blocks=2)
    >>> spec.width, spec.changed
    (384, {'size': 'vdvae', 'output_blocks': 2})
    """

    honours_detached_outputs: ClassVar[bool]
    is_sequence: ClassVar[bool]
    resolutions: ClassVar[tuple[int, ...]]
    sizes: ClassVar[Sizes]

    @model_validator(mode="before")
    @classmethod
    def _of_size(cls, given: Any) -> Any:
        return of_size(cls.sizes, given) if isinstance(given, Mapping) else given

    def __reduce__(self) -> Any:
        return _by_name, ("model", self.model_dump())


def _by_name(kind: Kind, fields: dict[str, Any]) -> Spec:
    registry: Mapping[str, type[Spec]] = DECODERS if kind == "decoder" else MODELS
    return registry[fields["name"]](**fields)


S = TypeVar("S", bound=Spec)


def _constants(base: type[Spec]) -> Collection[str]:
    """The class attributes that a spec takes from its implementation."""
    return [name for name in base.__annotations__ if name in base.__class_vars__]


def make_spec(base: type[S], name: str, declared: Declaration) -> type[S]:
    """The spec that a declaration gives under a name.

    Raises:
        DeclarationError: an option's name is taken.

    >>> from baselines.declarations import Argument
    >>> declared = Declaration("m:Blur", "A blur.", {"width": Argument(Size, 3)}, {})
    >>> make_spec(Spec, "blur", declared)()
    Blur(name='blur', width=3)
    """
    module, _, owner = declared.implementation.partition(":")
    fields: dict[str, Any] = {"name": (Literal[name], name)}
    for option, (annotation, default) in declared.arguments.items():
        if get_origin(annotation) is Annotated and _Given in get_args(annotation):
            continue
        if hasattr(base, option) or option == "name":
            raise DeclarationError(taken(option, owner))
        # `true` is no whole number.
        annotation = StrictInt if annotation is int else annotation
        fields[option] = (annotation, Field(default, validate_default=True))
    spec = create_model(
        owner,
        __base__=base,
        __module__=module,
        __doc__=declared.documentation or owner,
        **fields,
    )
    spec.implementation = declared.implementation
    for constant, value in declared.constants.items():
        setattr(spec, constant, value)
    return spec


def _bundled(base: type[S], kind: str, package: ModuleType) -> dict[str, Any]:
    name, constants = package.__name__, _constants(base)
    found = from_source(name, package.MODULES, Configured, kind, globals(), constants)
    return {name: make_spec(base, name, declared) for name, declared in found.items()}


DECODERS: dict[str, type[DecoderSpec]] = _bundled(DecoderSpec, "decoder", decoders)
MODELS: dict[str, type[ModelSpec]] = _bundled(ModelSpec, "model", models)
"""Every spec by name: the bundled ones in the order of the tables, then those of plugins."""


# -- registering -----------------------------------------------------------------------------------


C = TypeVar("C", bound=type[Configured])


def decoder(name: str) -> Callable[[C], C]:
    """Register a `baselines.decoders.base.Decoder` under a name for `decoders` in a grid.

    Raises:
        DeclarationError: it is no decoder, has a constructor of its own, its name or that of an
            option is taken, or an annotation is no type of an option.

    >>> decoder("mine")(dict)
    Traceback (most recent call last):
    baselines.declarations.DeclarationError: dict is not a subclass of Decoder
    """
    return _registering("decoder", name, DecoderSpec, DECODERS)


def model(name: str) -> Callable[[C], C]:
    """Register a `baselines.models.base.Model` under a name for `models` in a grid.

    Raises:
        DeclarationError: as `decoder` does.

    >>> model("mine")(dict)
    Traceback (most recent call last):
    baselines.declarations.DeclarationError: dict is not a subclass of Model
    """
    return _registering("model", name, ModelSpec, MODELS)


def _registering(
    kind: Kind, name: str, base: type[Spec], registry: Mapping[str, type[Spec]]
) -> Callable[[C], C]:
    bundled = [known for known, spec in registry.items() if spec.source is None]

    def apply(implementation: C) -> C:
        module = getattr(implementation, "__module__", "")
        if not module.startswith((f"{decoders.__name__}.", f"{models.__name__}.")):
            register(
                kind, name, implementation, _spec_of(base, name, implementation, kind), bundled
            )
        return implementation

    return apply


def _spec_of(base: type[S], name: str, implementation: Any, kind: Kind) -> type[S]:
    who = getattr(implementation, "__name__", repr(implementation))
    if getattr(implementation, "kind", None) != kind:
        raise DeclarationError(f"{who} is not a subclass of {kind.capitalize()}")
    if getattr(implementation, "__init__") is not Configured.__init__:  # noqa: B009
        raise DeclarationError(
            f"{who} has a constructor: declare its options as annotated attributes, as in "
            "`scale: float = 1.0`, and build the rest in `setup(self)`"
        )
    _arguments(implementation)
    return make_spec(base, name, from_class(implementation, Configured, _constants(base)))
