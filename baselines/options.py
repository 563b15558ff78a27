"""Options: how a decoder, a model or a balance declares them and offers them to a grid.

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
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictInt,
    create_model,
    model_serializer,
    model_validator,
)

from baselines import balances, decoders, models
from baselines.configured import (
    COLOUR,
    COLOURS,
    MOST,
    UNSAID,
    ColourSwitch,
    Configured,
    Count,
    Decay,
    FiniteVarianceDf,
    Fraction,
    Given,
    Kind,
    Link,
    Over,
    Positive,
    Share,
    Size,
    Switch,
    arguments_of,
    disorder,
    is_given,
)
from baselines.declarations import (
    Declaration,
    DeclarationError,
    from_class,
    from_source,
    taken,
)
from baselines.levels import Levels
from baselines.registration import register
from baselines.sizes import Sizes, fewest, of_size

__all__ = [
    "BALANCES",
    "DECODERS",
    "MODELS",
    "MOST",
    "BalanceSpec",
    "ColourSwitch",
    "Configured",
    "Count",
    "Decay",
    "DecoderSpec",
    "FiniteVarianceDf",
    "Fraction",
    "Given",
    "Levels",
    "Link",
    "ModelSpec",
    "Over",
    "Positive",
    "Share",
    "Size",
    "Spec",
    "Switch",
    "balance",
    "decoder",
    "make_spec",
    "model",
]

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
        if fault := disorder(self.__dict__):
            raise ValueError(fault)
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            key: value
            for key, value in dump(self).items()
            if value is not None or UNSAID not in fields[key].metadata
        }

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of the implementation, less switches that are off."""
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

    learns_scale: ClassVar[bool]
    is_likelihood: ClassVar[bool]
    is_discrete: ClassVar[bool]
    detached_outputs: ClassVar[int]

    def misfit(self, channels: int) -> str:
        """Why it cannot have images of so many channels; empty where it can.

        >>> DECODERS["logistic_mixture"](coupled=True).misfit(1)
        'coupled: it needs images of three channels, not of 1'
        """
        for key, field in type(self).model_fields.items():
            if COLOUR in field.metadata and getattr(self, key) and channels != COLOURS:
                return f"{key}: {COLOUR.meaning}, not of {channels}"
        return ""

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


class BalanceSpec(Spec):
    """A rule that balances distortion and rate; the class attributes are those of its `Balance`.

    >>> BALANCES["elbo"]().options
    {}
    """

    sets_scale: ClassVar[bool]
    ends_at_elbo: ClassVar[bool]
    has_beta: ClassVar[bool]
    fixes: ClassVar[str]

    def refusal(self, decoder: DecoderSpec) -> str:
        """Why it cannot train this decoder, in one sentence; empty where it can.

        >>> BALANCES["elbo"]().refusal(DECODERS["optimal"]())
        ''
        """
        if not (self.sets_scale and decoder.learns_scale):
            return ""
        return (
            f"balance '{self.name}' is redundant with decoder '{decoder.name}', which learns its "
            "σ: both set one degree of freedom, what an error costs in nats; choose a decoder of "
            "fixed σ, such as gaussian, or another balance"
        )

    def __reduce__(self) -> Any:
        return _by_name, ("balance", self.model_dump())


def _by_name(kind: Kind, fields: dict[str, Any]) -> Spec:
    registries: dict[Kind, Mapping[str, type[Spec]]]
    registries = {"decoder": DECODERS, "model": MODELS, "balance": BALANCES}
    return registries[kind][fields["name"]](**fields)


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
        if is_given(annotation):
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
BALANCES: dict[str, type[BalanceSpec]] = _bundled(BalanceSpec, "balance", balances)
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


def balance(name: str) -> Callable[[C], C]:
    """Register a `baselines.balances.base.Balance` under a name for `balances` in a grid.

    Raises:
        DeclarationError: as `decoder` does.

    >>> balance("mine")(dict)
    Traceback (most recent call last):
    baselines.declarations.DeclarationError: dict is not a subclass of Balance
    """
    return _registering("balance", name, BalanceSpec, BALANCES)


def _registering(
    kind: Kind, name: str, base: type[Spec], registry: Mapping[str, type[Spec]]
) -> Callable[[C], C]:
    bundled = [known for known, spec in registry.items() if spec.source is None]

    def apply(implementation: C) -> C:
        module = getattr(implementation, "__module__", "")
        if not module.startswith(tuple(f"{p.__name__}." for p in (balances, decoders, models))):
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
    arguments_of(implementation)
    return make_spec(base, name, from_class(implementation, Configured, _constants(base)))
