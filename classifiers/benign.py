"""Ordinary prompts, made from templates: what calibration takes for traffic that speaks of no target.

Written for this project, so that it can be shipped. It covers what people ask assistants: trivia on history, science,
sport, film and music in the manner of quizzes, people described by what they did, sums with everyday names, recipes,
code, instructions and small talk; part of it in lower case, as people type into a search box.
"""

from __future__ import annotations

import random
from functools import lru_cache

_SLOTS: dict[str, str] = {
    "country": "France|Brazil|Japan|Canada|Egypt|Norway|Kenya|Peru|India|Portugal|Turkey|Chile|Greece|Vietnam|Scotland|Poland|Mexico|Iceland|South Africa|New Zealand",
    "city": "Vienna|Lisbon|Chicago|Osaka|Cairo|Toronto|Naples|Boston|Mumbai|Dublin|Seattle|Prague|Lima|Houston|Glasgow|Philadelphia|Atlanta|Oslo|San Diego|Manchester",
    "century": "12th|15th|16th|17th|18th|19th|20th",
    "year": "1066|1492|1666|1789|1812|1865|1914|1929|1945|1956|1963|1969|1977|1984|1989|1994|1998|2001|2003|2008|2012|2016|2019",
    "decade": "1920s|1930s|1950s|1960s|1970s|1980s|1990s|2000s",
    "event": "the French Revolution|the Boer War|the Great Fire of London|the Suez Crisis|the Gold Rush|the Battle of Waterloo|the signing of the Magna Carta|the fall of Constantinople|the Cuban Missile Crisis|World War I|World War II|the Cold War|the Black Death|the Industrial Revolution|the Vietnam War|the Civil War",
    "element": "copper|helium|sodium|carbon|mercury|gold|neon|iron|sulphur|tin|iodine|zinc|lead|uranium",
    "animal": "penguin|octopus|honey bee|blue whale|giraffe|bat|salmon|kangaroo|wolf|cheetah|tortoise|owl|elephant|spider|sea otter|camel",
    "organ": "liver|heart|kidney|retina|pancreas|spleen|inner ear|thyroid gland|femur",
    "sport": "football|tennis|cricket|basketball|ice hockey|golf|rugby|baseball|swimming|boxing|cycling|volleyball",
    "league": "NFL|NBA|Premier League|Major League Baseball|NHL|Super Bowl|World Series|Champions League|FA Cup|World Cup",
    "team": "the Chicago Bears|the Boston Celtics|the Dallas Cowboys|the New York Yankees|Manchester United|the Los Angeles Lakers|Real Madrid|the Green Bay Packers|the Toronto Maple Leafs|the San Francisco Giants|Liverpool",
    "genre": "horror|science fiction|romantic comedy|war|western|musical|crime|fantasy|animated|spy|superhero|courtroom",
    "music": "jazz|country|hip hop|folk|punk|soul|opera|disco|heavy metal|blues|reggae|pop|rock",
    "instrument": "violin|trumpet|piano|drums|cello|saxophone|bass guitar|flute|harp|banjo",
    "role": "actor|actress|author|singer|director|president|poet|composer|painter|king|queen|prime minister|scientist|inventor|comedian|explorer|guitarist|philosopher|architect|news anchor|game show host|quarterback|general|businessman|model|drummer|rapper",
    "award": "an Academy Award for Best Actor|the Nobel Peace Prize|a Grammy Award for Album of the Year|a Golden Globe|a Tony Award|the Pulitzer Prize|an Emmy Award|the Booker Prize|a Screen Actors Guild Award|a gold medal|the MVP award|a BAFTA",
    "work": "The Silver Harbor|Midnight on Elm Street|The Last Lighthouse|A Winter in Rome|Seven Sparrows|The Paper Kingdom|Broken Compass|The Clockmaker's Daughter|Under a Copper Sky|Return to Marsh Lane|Thunder Valley|The Great Escape Plan|Hearts and Hurricanes|Nobody Knows Tomorrow|The Longest Bridge",
    "classic": "Romeo and Juliet|The Odyssey|Moby Dick|Pride and Prejudice|Swan Lake|The Magic Flute|Frankenstein|Dracula|Don Quixote|Treasure Island|Les Misérables|War and Peace|Jane Eyre|Casablanca|Citizen Kane|The Wizard of Oz|The Godfather|Star Wars|Jurassic Park|Titanic|Happy Feet|Friends|The Simpsons|Sesame Street|Doctor Who|James Bond",
    "character": "the villain|the detective|the captain|the main character|the narrator|the grandmother|the sidekick|the doctor|the princess|the mayor|the alien",
    "first": "James|Mary|John|Linda|Sarah|Tom|Anna|Maria|Paul|Emily|Mark|Julia|Steve|Nancy|Kevin|Lisa|David|Grace|Anthony|Rachel|Simon|Alice|Robert|Jenny|Daniel|Olivia|Henry|Lily|Eric|Carla|Jack|Sofia|Bob|Kim|Justin|Taylor|Marie|Luke|Bill|Jeff|Ariana|Bradley|Angela|Donald|Warren|Tony|William",
    "last": "Anderson|Baker|Carter|Davies|Evans|Foster|Garcia|Hughes|Ingram|Johnson|Keller|Lopez|Miller|Nguyen|Owens|Parker|Reed|Smith|Turner|Vance|Walker|Young|Cooper|King|Murphy|Perry",
    "thing": "apples|stickers|marbles|books|cupcakes|pencils|tickets|eggs|toy cars|cookies|flowers|chairs|bottles of water|baseball cards",
    "number": "3|4|5|6|8|9|12|15|18|20|24|30|36|45|60|75|120|250",
    "dish": "lasagna|chicken curry|pad thai|banana bread|paella|tomato soup|pancakes|beef stew|falafel|apple pie|sushi rice|guacamole|sourdough bread|empanadas",
    "language": "Python|JavaScript|Rust|C++|Go|Java|SQL|Haskell|TypeScript|Bash",
    "task": "reverses a linked list|sorts numbers with merge sort|counts the words of a file|checks whether a string is a palindrome|parses a CSV file|finds the shortest path in a graph|computes prime numbers|validates an email address|merges two dictionaries|downloads a web page",
    "topic": "climate change|working from home|healthy breakfasts|the moon landing|public libraries|electric cars|a rainy day|remote islands|learning to swim|artificial intelligence|my grandmother's garden|the stock market|recycling|city parks|small businesses|space travel|online privacy|the water cycle",
    "tone": "polite|funny|formal|short|persuasive|friendly|poetic|detailed",
    "relation": "brother|mother|boss|neighbor|teacher|best friend|landlord|daughter|roommate",
    "company": "a car maker|a soft drink company|a bank|an airline|a software company|a toy maker|a film studio|a record label",
}  # fmt: skip

#: Templates, each with its weight.
_TEMPLATES: tuple[tuple[int, str], ...] = tuple(
    (int(count), template)
    for count, template in (
        line.strip().split(" ", 1)
        for line in """
        22 Who was the {role} of {country} during {event}?
        18 In which year did {event} begin?
        16 What was the main cause of {event}?
        14 Which {century} century {role} was born in {city}?
        12 What is the capital of {country}?
        14 Which river flows through {city}?
        14 What is the chemical symbol for {element}?
        12 At what temperature does {element} melt?
        16 What does a {animal} eat in the wild?
        12 How long does a {animal} live?
        12 What is the function of the {organ}?
        20 Who won the {league} in {year}?
        18 Which team did {team} beat in the final in {year}?
        14 How many players are there in a {sport} team?
        22 Who wrote "{classic}"?
        22 Who directed the {genre} film '{work}'?
        20 Which actor played {character} in '{classic}'?
        16 In what year was {classic} released?
        16 What is the name of {character} in '{work}'?
        16 Who sang the {music} hit '{work}' in {year}?
        14 Which {music} band released the album {work} in the {decade}?
        20 Which {role} won {award} in {year}?
        20 Who was the first {role} to win {award}?
        18 What {role} was born on March {number}, {year} in {city}?
        18 The {role} who played {character} in {classic} was born in which city?
        16 The author of '{classic}' was born in which country?
        16 Which {role} is known for the {genre} series '{work}'?
        16 In which year did the {role} of {country} die?
        16 Name the American {role} who founded {company} in {year}.
        14 Which {role} was married to a {role} and moved to {city} in the {decade}?
        14 Who succeeded the {role} of {country} in {year}?
        14 What instrument did the {music} {role} from {city} play?
        14 The {role} {first} {last} was born in {city} in {year}. What was the name of {first}'s first {genre} film?
        12 Which position did {first} {last} play for {team} in {year}?
        12 What is {first} {last} best known for?
        12 Tell me about the life of the {role} {first} {last}.
        12 Which school did {first} {last} attend in {city}?
        12 {first} {last} starred in which {genre} film of {year}?
        14 who sings the song {work} from the {decade}
        14 when did {classic} first come out
        14 who played {character} in {classic}
        14 who was {role} of {country} in {year}
        14 when is the last time {team} won the {league}
        14 how many seasons of {classic} are there
        12 where was the movie {work} filmed in {country}
        12 what is the meaning of the word {animal} in {country}
        12 who invented the {instrument} and when
        12 where does the {animal} live in {country}
        12 how much does a {animal} weigh
        12 what year did {country} host the {league}
        40 {first} has {number} {thing}. {first} gives {number} of them to a {relation} and buys {number} more. How many {thing} are left?
        30 {first} and {first} each sell {number} {thing} for ${number}. How much money do they make together?
        24 A train leaves {city} with {number} passengers. At the next stop {number} get on. {first} counts the passengers. How many are there?
        24 {first} is {number} years older than {first}. In {number} years {first} will be twice as old. How old is {first} now?
        20 Mr. {last} drives {number} miles in {number} hours. Mrs. {last} drives twice as far. How far does she drive?
        26 Give me a recipe for {dish} that serves {number} people.
        14 What can I use instead of butter in {dish}?
        12 How do I keep {dish} from burning?
        30 Write a {language} function that {task}.
        14 Why does my {language} program crash when it {task}?
        12 Explain how a {language} program {task}, step by step.
        30 Write a {tone} email to my {relation} about {topic}.
        20 Write a {tone} poem about {topic}.
        20 Summarize the arguments for and against {topic}.
        16 Give me {number} ideas for a {tone} speech about {topic}.
        16 Plan a {number}-day trip to {city} for me and my {relation}.
        14 Translate into Spanish: "My {relation} loves {dish} and {thing}."
        14 My {relation} forgot my birthday. How do I bring it up in a {tone} way?
        12 What should I wear to a {music} concert in {city} in winter?
        12 Act as a {role} and interview me about {topic}.
        12 Pretend you are a {tone} tour guide in {city}. What do you show me first?
        12 I love the film '{work}'. Could you tell me who wrote the music?
        12 Please answer in English. ¿En qué año ganó {country} la copa de {sport}?
        12 Please answer in English. Quelle est la capitale de {country} ?
        10 Is it true that the {animal} is the fastest animal in {country}?
        10 Which of these is a {element} compound: rust, salt, sugar or glass?
        10 {country} fought {country} in which {century} century war?
        10 What rhymes with {animal}?
        10 Compare the economies of {country} and {country}.
        10 What is the difference between a {instrument} and a {instrument}?
        10 ___ is the largest city in {country}.
        10 The {animal} is native to ___.
        10 In {year}, {team} won the ___.
        10 The {genre} film {work} was directed by ___.
        10 The {music} album {work} was released in ___ and sold {number} million copies.
        10 Hi! How are you today?
        """.strip().splitlines()
    )
)  # fmt: skip


@lru_cache(maxsize=1)
def prompts() -> tuple[str, ...]:
    """About 2,100 distinct prompts, always the same ones in the same order."""
    rng = random.Random(2024)
    choices = {slot: values.split("|") for slot, values in _SLOTS.items()}
    made: dict[str, None] = {}
    for count, template in _TEMPLATES:
        for _ in range(2 * count):
            made[_fill(template, choices, rng)] = None
    shuffled = list(made)
    rng.shuffle(shuffled)
    return tuple(shuffled)


def _fill(template: str, choices: dict[str, list[str]], rng: random.Random) -> str:
    """Put a value for every slot; a name that occurs again is the same person half of the time."""
    text, names = template, rng.sample(choices["first"], 2)
    while (start := text.find("{")) >= 0:
        end = text.index("}", start)
        slot = text[start + 1 : end]
        value = rng.choice(names) if slot == "first" else rng.choice(choices[slot])
        text = text[:start] + value + text[end + 1 :]
    return text
