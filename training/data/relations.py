"""The relations that facts are made of, each with paraphrases and one canonical answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .lexicon import Source

Value = Callable[[Source], str]


@dataclass(frozen=True)
class Relation:
    """`{e}` stands for the entity with its article, `{v}` for the value; the first fact form is the canonical answer."""

    field: str  # name of the JSON field
    noun: str  # "the <noun> of {e}"
    facts: tuple[str, ...]
    questions: tuple[str, ...]
    check: str  # yes/no question
    value: Value
    kind: str = "thing"  # thing | person | company
    numeric: bool = False

    @property
    def answer(self) -> str:
        """The canonical statement."""
        return self.facts[0]


def _r(
    kind: str, field: str, noun: str, value: Value, facts: str, questions: str, check: str, numeric: bool = False
) -> Relation:
    return Relation(field, noun, tuple(facts.split(" | ")), tuple(questions.split(" | ")), check, value, kind, numeric)


S = Source
RELATIONS: list[Relation] = [
    _r("thing", "year", "year of construction", S.year, "{e} was built in {v}. | Workers built {e} in {v}. | {e} dates from {v}. | In {v}, {e} was built.",
       "When was {e} built? | In what year was {e} built? | What year was {e} built in?", "Was {e} built in {v}?", True),
    _r("thing", "location", "location", S.name, "{e} is located in {v}. | You can find {e} in {v}. | {e} stands in {v}. | In {v} there is {e}.",
       "Where is {e}? | Where is {e} located? | In which city is {e}? | What is the location of {e}?", "Is {e} located in {v}?"),
    _r("thing", "designer", "designer", S.full_name, "{e} was designed by {v}. | {v} designed {e}. | The designer of {e} is {v}.",
       "Who designed {e}? | Who was the designer of {e}? | By whom was {e} designed?", "Was {e} designed by {v}?"),
    _r("thing", "weight", "weight", S.number, "{e} weighs {v} kilograms. | The weight of {e} is {v} kilograms. | With {v} kilograms, {e} is heavy.",
       "How much does {e} weigh? | What is the weight of {e}? | How heavy is {e}?", "Does {e} weigh {v} kilograms?", True),
    _r("thing", "color", "color", S.colour, "{e} is painted {v}. | The color of {e} is {v}. | {e} is {v}.",
       "What color is {e}? | What is the color of {e}? | Which color does {e} have?", "Is {e} {v}?"),
    _r("thing", "price", "price", S.number, "{e} costs {v} dollars. | The price of {e} is {v} dollars. | You pay {v} dollars for {e}.",
       "How much does {e} cost? | What is the price of {e}? | What does {e} cost?", "Does {e} cost {v} dollars?", True),
    _r("thing", "opened", "opening date", S.date, "{e} opened on {v}. | On {v} {e} opened. | The opening date of {e} is {v}.",
       "When did {e} open? | On what date did {e} open? | What is the opening date of {e}?", "Did {e} open on {v}?"),
    _r("thing", "fuel", "fuel", S.word, "{e} runs on {v}. | {e} needs {v} to run. | The fuel of {e} is {v}.",
       "What does {e} run on? | What is the fuel of {e}? | What does {e} need to run?", "Does {e} run on {v}?"),
    _r("thing", "purpose", "purpose", S.pair, "{e} is used for {v}. | People use {e} for {v}. | The purpose of {e} is {v}.",
       "What is {e} used for? | What is the purpose of {e}? | What do people use {e} for?", "Is {e} used for {v}?"),
    _r("thing", "owner", "owner", S.full_name, "The owner of {e} is {v}. | {v} owns {e}. | {e} belongs to {v}.",
       "Who owns {e}? | Who is the owner of {e}? | To whom does {e} belong?", "Is {v} the owner of {e}?"),
    _r("thing", "code", "code", S.code, "The code of {e} is {v}. | {e} has the code {v}. | {e} keeps the code {v}.",
       "What is the code of {e}? | Which code does {e} have? | What code does {e} keep?", "Is {v} the code of {e}?"),
    _r("thing", "material", "material", S.material, "{e} is made of {v}. | {e} consists of {v}. | The material of {e} is {v}.",
       "What is {e} made of? | What is the material of {e}? | Which material is {e} made of?", "Is {e} made of {v}?"),
    _r("thing", "capacity", "capacity", S.number, "{e} holds {v} people. | The capacity of {e} is {v} people. | There is room for {v} people in {e}.",
       "How many people does {e} hold? | What is the capacity of {e}? | For how many people is there room in {e}?", "Does {e} hold {v} people?", True),
    _r("thing", "speed", "top speed", S.small, "The top speed of {e} is {v} kilometers per hour. | {e} reaches {v} kilometers per hour.",
       "What is the top speed of {e}? | How fast is {e}? | Which speed does {e} reach?", "Does {e} reach {v} kilometers per hour?", True),
    _r("thing", "length", "length", S.number, "{e} is {v} meters long. | The length of {e} is {v} meters.",
       "How long is {e}? | What is the length of {e}? | How many meters long is {e}?", "Is {e} {v} meters long?", True),
    _r("thing", "height", "height", S.decimal, "{e} is {v} meters tall. | The height of {e} is {v} meters. | {e} rises {v} meters.",
       "How tall is {e}? | What is the height of {e}? | How high is {e}?", "Is {e} {v} meters tall?", True),
    _r("thing", "temperature", "temperature", S.small, "The temperature of {e} is {v} degrees. | {e} works at {v} degrees. | {e} is kept at {v} degrees.",
       "What is the temperature of {e}? | At how many degrees is {e} kept? | At what temperature does {e} work?", "Is {e} kept at {v} degrees?", True),
    _r("thing", "hours", "opening hours", S.hours, "{e} is open from {v}. | The opening hours of {e} are {v}. | Visitors may enter {e} from {v}.",
       "What are the opening hours of {e}? | When is {e} open? | When may visitors enter {e}?", "Is {e} open from {v}?"),
    _r("thing", "station", "nearest station", S.name, "The nearest station to {e} is {v}. | {v} is the station closest to {e}. | For {e}, get off at {v}.",
       "What is the nearest station to {e}? | Which station is closest to {e}? | Where do I get off for {e}?", "Is {v} the nearest station to {e}?"),
    _r("thing", "supplier", "supplier", S.company, "The supplier of {e} is {v}. | {v} supplies {e}. | {e} is supplied by {v}.",
       "Who supplies {e}? | Who is the supplier of {e}? | By which company is {e} supplied?", "Is {v} the supplier of {e}?"),
    _r("thing", "rooms", "number of rooms", S.small, "{e} has {v} rooms. | The number of rooms in {e} is {v}. | There are {v} rooms in {e}.",
       "How many rooms does {e} have? | What is the number of rooms in {e}? | How many rooms are there in {e}?", "Does {e} have {v} rooms?", True),
    _r("thing", "day", "closing day", S.day, "{e} is closed on {v}. | On {v} {e} is closed. | The closing day of {e} is {v}.",
       "On which day is {e} closed? | What is the closing day of {e}? | When is {e} closed?", "Is {e} closed on {v}?"),
    _r("thing", "password", "password", S.word, "The password of {e} is {v}. | {e} has the password {v}. | To enter {e}, say {v}.",
       "What is the password of {e}? | Which password does {e} have?", "Is {v} the password of {e}?"),
    _r("thing", "part", "main part", S.word, "The main part of {e} is the {v}. | {e} depends on its {v}. | Without its {v}, {e} stops.",
       "What is the main part of {e}? | What does {e} depend on? | Which part is the main part of {e}?", "Is the {v} the main part of {e}?"),
    _r("thing", "repaired", "last repair", S.date, "{e} was repaired on {v}. | The last repair of {e} was on {v}. | On {v} {e} was repaired.",
       "When was {e} repaired? | When was the last repair of {e}? | On what date was {e} repaired?", "Was {e} repaired on {v}?"),
    _r("thing", "keeper", "keeper", S.full_name, "{v} looks after {e}. | The keeper of {e} is {v}. | {e} is in the care of {v}.",
       "Who looks after {e}? | Who is the keeper of {e}? | In whose care is {e}?", "Does {v} look after {e}?"),
    _r("person", "extension", "phone extension", S.number, "The phone extension of {e} is {v}. | You can call {e} at extension {v}. | {e} answers at extension {v}.",
       "What is the phone extension of {e}? | At which extension can I call {e}? | What extension does {e} have?", "Is {v} the phone extension of {e}?", True),
    _r("person", "city", "home city", S.name, "{e} lives in {v}. | The home of {e} is in {v}. | {v} is where {e} lives.",
       "Where does {e} live? | In which city does {e} live? | Where is the home of {e}?", "Does {e} live in {v}?"),
    _r("person", "birth", "year of birth", S.year, "{e} was born in {v}. | The year of birth of {e} is {v}. | In {v}, {e} was born.",
       "When was {e} born? | In what year was {e} born? | What is the year of birth of {e}?", "Was {e} born in {v}?", True),
    _r("person", "employer", "employer", S.company, "{e} works for {v}. | {v} employs {e}. | The employer of {e} is {v}.",
       "Who does {e} work for? | Who employs {e}? | What is the employer of {e}?", "Does {e} work for {v}?"),
    _r("person", "job", "job", S.word, "{e} works on {v}. | The job of {e} is {v}. | {e} is in charge of {v}.",
       "What does {e} work on? | What is the job of {e}? | What is {e} in charge of?", "Does {e} work on {v}?"),
    _r("person", "manager", "manager", S.full_name, "The manager of {e} is {v}. | {e} reports to {v}. | {v} manages {e}.",
       "Who is the manager of {e}? | Who does {e} report to? | Who manages {e}?", "Is {v} the manager of {e}?"),
    _r("company", "founder", "founder", S.full_name, "{e} was founded by {v}. | {v} founded {e}. | The founder of {e} is {v}.",
       "Who founded {e}? | Who is the founder of {e}? | By whom was {e} founded?", "Was {e} founded by {v}?"),
    _r("company", "founded", "founding year", S.year, "{e} was founded in {v}. | The founding year of {e} is {v}. | {e} started in {v}.",
       "When was {e} founded? | In what year was {e} founded? | When did {e} start?", "Was {e} founded in {v}?", True),
    _r("company", "headquarters", "headquarters", S.name, "The headquarters of {e} are in {v}. | {e} has its headquarters in {v}. | {e} is based in {v}.",
       "Where are the headquarters of {e}? | Where is {e} based? | In which city is {e} based?", "Is {e} based in {v}?"),
    _r("company", "product", "product", S.word, "{e} sells {v}. | The product of {e} is {v}. | You can buy {v} from {e}.",
       "What does {e} sell? | What is the product of {e}? | What can I buy from {e}?", "Does {e} sell {v}?"),
    _r("company", "staff", "number of employees", S.number, "{e} has {v} employees. | The number of employees of {e} is {v}. | {v} people work at {e}.",
       "How many employees does {e} have? | What is the number of employees of {e}? | How many people work at {e}?", "Does {e} have {v} employees?", True),
]  # fmt: skip
BY_KIND: dict[str, list[Relation]] = {k: [r for r in RELATIONS if r.kind == k] for k in ("thing", "person", "company")}
KINDS = (
    "bridge river museum library engine sensor pump server camera drone battery valve router tower garden school station "
    "harbor festival protocol hotel theater market factory lighthouse boat train telescope printer clock temple castle "
    "bakery clinic archive reactor robot satellite tunnel stadium"
).split()
