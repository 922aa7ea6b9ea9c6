//! The companies of the simulated world.
//!
//! Company `i` of a seed is always the same company, whichever simulator asks, so that two systems can hold copies of it.
//! The copies differ as copies in real companies do: [`Universe::view`] tells what one system holds. All data is made up;
//! domains end in `.example`. Amounts are decimal text, never floats.
//!
//! Who has a tax id: everyone with 5,000 <= i < 10,000 (the companies that both systems hold by default, so that matching
//! by tax id finds them all), and about 97 % of the others. A parent lies in the same block of 1,000 companies and has a
//! smaller index, so there are no cycles and a system that holds whole blocks holds every parent.

use bigdecimal::num_bigint::BigInt;

use crate::System;

/// How many companies a block has; a parent and its children share one.
pub const BLOCK: u64 = 1_000;

/// The life of a business relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not yet a customer.
    Prospect,
    /// Buys.
    Customer,
    /// Bought once.
    Former,
}

/// A company as it is, or as one system sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Company {
    /// Its index in the world.
    pub index: u64,
    /// Legal name, unique in the world; with quotes, apostrophes and scripts beyond Latin, at most 200 characters.
    pub name: String,
    /// Tax registration number, unique.
    pub tax_id: Option<String>,
    /// General address for mail.
    pub email: Option<String>,
    /// Telephone in E.164 (`+12125550123`) as it is; in a view as that system writes it.
    pub phone: Option<String>,
    /// Home page.
    pub website: Option<String>,
    /// Street and house number; may hold a line break.
    pub street: String,
    /// City.
    pub city: String,
    /// State or region; none in countries that do not use one.
    pub state: Option<String>,
    /// Postal code.
    pub postal_code: String,
    /// Country by name, in English.
    pub country: String,
    /// Country by ISO 3166-1 alpha-2 code.
    pub country_code: String,
    /// Industry, one of [`INDUSTRIES`].
    pub industry: String,
    /// Segment, one of [`SEGMENTS`].
    pub segment: String,
    /// Yearly revenue, decimal text with two places, up to 16 digits before the point.
    pub annual_revenue: Option<String>,
    /// Credit limit, decimal text with two places.
    pub credit_limit: Option<String>,
    /// Number of employees.
    pub employees: Option<u32>,
    /// Index of the parent company.
    pub parent: Option<u64>,
    /// Status.
    pub status: Status,
    /// Free text; often none, sometimes thousands of characters.
    pub description: Option<String>,
    /// People.
    pub contacts: Vec<Contact>,
}

/// A person at a company.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Position among the company's contacts, from 0.
    pub index: usize,
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: String,
    /// Mail.
    pub email: Option<String>,
    /// Telephone.
    pub phone: Option<String>,
    /// Job title.
    pub title: Option<String>,
}

/// The world of one seed.
#[derive(Clone, Copy, Debug)]
pub struct Universe {
    seed: u64,
}

/// The industries in use, all of them values of Salesforce's standard picklist.
pub const INDUSTRIES: [&str; 12] = [
    "Agriculture",
    "Banking",
    "Chemicals",
    "Construction",
    "Electronics",
    "Energy",
    "Healthcare",
    "Machinery",
    "Manufacturing",
    "Retail",
    "Technology",
    "Transportation",
];

/// The segments in use.
pub const SEGMENTS: [&str; 4] = ["Enterprise", "Mid-Market", "Small Business", "Public Sector"];

const FIRST: [&str; 64] = [
    "Acacia",
    "Adler",
    "Alpen",
    "Amber",
    "Änderung",
    "Arbor",
    "Ashford",
    "Aurora",
    "Baltic",
    "Bergström",
    "Blue Heron",
    "Bœuf & Fils",
    "Brookfield",
    "Calder",
    "Cascade",
    "Čapek",
    "Cedar",
    "Château",
    "Cobalt",
    "Copper",
    "Crown",
    "Dąbrowski",
    "Delta",
    "Ebro",
    "Elm",
    "Ernst",
    "Évora",
    "Falcon",
    "Fjord",
    "Fox & Hound",
    "Fujisan",
    "Garnet",
    "Granite",
    "Großmann",
    "Harbor",
    "Hawthorn",
    "Ibérica",
    "Iron Gate",
    "Jasper",
    "Juniper",
    "Kestrel",
    "Kraków",
    "L'Étoile",
    "Lakeside",
    "Linden",
    "Łódź",
    "Magnolia",
    "Meridian",
    "Münster",
    "Nordlys",
    "O'Brien",
    "Olympia",
    "Ørsted",
    "Pacific",
    "Pioneer",
    "Quartz",
    "Rheinland",
    "São Jorge",
    "Sierra",
    "Šumava",
    "Summit",
    "Tōkai",
    "Zürich",
    "東海",
];

const MIDDLE: [&str; 64] = [
    "Aerospace",
    "Agrar",
    "Air",
    "Analytics",
    "Apparel",
    "Automation",
    "Bakery",
    "Bearings",
    "Biotech",
    "Brewing",
    "Building",
    "Cable",
    "Capital",
    "Castings",
    "Ceramics",
    "Chemie",
    "Cold Storage",
    "Components",
    "Controls",
    "Cooperative",
    "Dairy",
    "Dental",
    "Diagnostics",
    "Dynamics",
    "Elektro",
    "Energía",
    "Engineering",
    "Equipment",
    "Farms",
    "Fasteners",
    "Filtration",
    "Foods",
    "Foundry",
    "Freight",
    "Furniture",
    "Glass",
    "Holdings",
    "Hydraulics",
    "Instruments",
    "Insurance",
    "Interiors",
    "Kliniken",
    "Labs",
    "Lighting",
    "Logistics",
    "Marine",
    "Médical",
    "Metals",
    "Mills",
    "Mobility",
    "Optik",
    "Packaging",
    "Paper",
    "Pharma",
    "Plastics",
    "Power",
    "Precision",
    "Printing",
    "Robotics",
    "Shipping",
    "Software",
    "Textiles",
    "Tools",
    "Water",
];

const TAIL: [&str; 32] = [
    "Group",
    "Partners",
    "Works",
    "Industries",
    "Systems",
    "Services",
    "International",
    "Solutions",
    "Trading",
    "Supply",
    "Technologies",
    "Associates",
    "& Sons",
    "& Daughters",
    "Brothers",
    "Union",
    "Collective",
    "Network",
    "Alliance",
    "Distribution",
    "\"Nord\"",
    "\"Süd\"",
    "East",
    "West",
    "of 1887",
    "No. 7",
    "24/7",
    "100 %",
    "(Holding)",
    "Europe",
    "América",
    "Asia-Pacific",
];

struct Place {
    code: &'static str,
    country: &'static str,
    forms: [&'static str; 2],
    dial: &'static str,
    cities: [(&'static str, Option<&'static str>, &'static str); 4],
    streets: [&'static str; 3],
}

const PLACES: [Place; 8] = [
    Place {
        code: "US",
        country: "United States",
        forms: ["Inc.", "LLC"],
        dial: "1212",
        cities: [
            ("New York", Some("NY"), "10001"),
            ("San José", Some("CA"), "95110"),
            ("Austin", Some("TX"), "73301"),
            ("Coeur d'Alene", Some("ID"), "83814"),
        ],
        streets: ["Market Street", "O'Farrell St", "Martin Luther King Jr. Blvd"],
    },
    Place {
        code: "CA",
        country: "Canada",
        forms: ["Ltd.", "Ltée"],
        dial: "1514",
        cities: [
            ("Montréal", Some("QC"), "H2X 1Y4"),
            ("Toronto", Some("ON"), "M5V 2T6"),
            ("Québec", Some("QC"), "G1R 4P5"),
            ("St. John's", Some("NL"), "A1C 5M2"),
        ],
        streets: ["Rue Sainte-Catherine", "Yonge Street", "Côte de la Montagne"],
    },
    Place {
        code: "DE",
        country: "Germany",
        forms: ["GmbH", "AG & Co. KG"],
        dial: "4989",
        cities: [("München", None, "80331"), ("Köln", None, "50667"), ("Düsseldorf", None, "40213"), ("Gießen", None, "35390")],
        streets: ["Königsallee", "Straße des 17. Juni", "Große Bleichen"],
    },
    Place {
        code: "FR",
        country: "France",
        forms: ["S.A.S.", "S.à r.l."],
        dial: "3314",
        cities: [("Paris", None, "75001"), ("L'Haÿ-les-Roses", None, "94240"), ("Besançon", None, "25000"), ("Orléans", None, "45000")],
        streets: ["Avenue de l'Opéra", "Rue de la République", "Quai d'Orsay"],
    },
    Place {
        code: "GB",
        country: "United Kingdom",
        forms: ["Ltd", "plc"],
        dial: "4420",
        cities: [
            ("London", None, "EC1A 1BB"),
            ("King's Lynn", None, "PE30 1AA"),
            ("Edinburgh", None, "EH1 1YZ"),
            ("Cardiff", None, "CF10 1EP"),
        ],
        streets: ["King's Road", "St. Andrew's Street", "The Shambles"],
    },
    Place {
        code: "ES",
        country: "Spain",
        forms: ["S.A.", "S.L."],
        dial: "3491",
        cities: [("Madrid", None, "28013"), ("A Coruña", None, "15001"), ("Cádiz", None, "11001"), ("València", None, "46001")],
        streets: ["Calle de Alcalá", "Paseo de la Castellana", "Carrer d'Aragó"],
    },
    Place {
        code: "PL",
        country: "Poland",
        forms: ["sp. z o.o.", "S.A."],
        dial: "4822",
        cities: [("Łódź", None, "90-001"), ("Kraków", None, "31-001"), ("Wrocław", None, "50-001"), ("Gdańsk", None, "80-001")],
        streets: ["ul. Świętokrzyska", "Aleje Jerozolimskie", "ul. Piotrkowska"],
    },
    Place {
        code: "JP",
        country: "Japan",
        forms: ["K.K.", "株式会社"],
        dial: "8135",
        cities: [("東京", None, "100-0001"), ("Ōsaka", None, "530-0001"), ("名古屋", None, "450-0002"), ("Kōbe", None, "650-0001")],
        streets: ["丸の内 1-chōme", "Midōsuji", "Sakura-dōri"],
    },
];

const GIVEN: [&str; 32] = [
    "Ana",
    "Björn",
    "Chloé",
    "Dmitri",
    "Éloïse",
    "Fatima",
    "George",
    "Hélène",
    "Ingrid",
    "José",
    "Katarzyna",
    "Łukasz",
    "María",
    "Nguyễn",
    "Olga",
    "Peter",
    "Quentin",
    "Renée",
    "Søren",
    "Tomáš",
    "Uwe",
    "Violeta",
    "William",
    "Xavier",
    "Yuki",
    "Zoë",
    "Mary-Jane",
    "Jean-Luc",
    "Aoife",
    "Çelik",
    "花子",
    "太郎",
];

const FAMILY: [&str; 32] = [
    "Andersson",
    "Brontë",
    "Çınar",
    "D'Angelo",
    "Eriksen",
    "Fernández",
    "García Márquez",
    "Hübner",
    "Ionescu",
    "Jørgensen",
    "Kowalczyk",
    "Lefèvre",
    "McDonald",
    "Novák",
    "O'Connor",
    "Pérez",
    "Quinn",
    "Rodríguez",
    "Smith",
    "Tanaka",
    "Ünal",
    "van der Berg",
    "Wójcik",
    "Xu",
    "Yılmaz",
    "Zhang",
    "St. Claire",
    "Nagy",
    "Müller-Lüdenscheidt",
    "Ó Súilleabháin",
    "山田",
    "佐藤",
];

const TITLES: [&str; 8] = [
    "CEO",
    "Head of Purchasing",
    "Accounts Payable",
    "IT Manager",
    "VP, Operations & Logistics",
    "Einkäuferin",
    "Directeur général",
    "\"Chief\" of Staff",
];

const TEXTS: [&str; 6] = [
    "Met at the trade fair; wants a quotation for the next fiscal year.",
    "Long-standing customer. Pays \"net 30\" but asks for 60.\nSecond line: don't call on Fridays.",
    "Übernahme 2021, Buchhaltung noch getrennt.",
    "Prefers delivery before 07:30; dock 4 \\ gate B.",
    "Décision d'achat au siège, 5 % de remise accordée.",
    "Key account 🚢 with several sites.",
];

/// A number that is spread evenly and always the same (the finaliser of SplitMix64).
#[must_use]
pub fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// A stream of such numbers.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0) % limit
    }

    fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let index = self.below(items.len() as u64);
        &items[usize::try_from(index).unwrap_or_default()]
    }
}

impl Universe {
    /// The world of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    fn draw(&self, index: u64, purpose: u64) -> Draw {
        Draw(mix(mix(self.seed) ^ mix(index.wrapping_mul(31).wrapping_add(purpose))))
    }

    /// Company `index` as it is, before any system's own view of it.
    #[must_use]
    pub fn company(&self, index: u64) -> Company {
        let mut draw = self.draw(index, 1);
        // One and the same step through all combinations of the three word lists gives every company its own name.
        let combinations = (FIRST.len() * MIDDLE.len() * TAIL.len()) as u64;
        let combination = (index.wrapping_mul(50_021).wrapping_add(mix(self.seed) % combinations)) % combinations;
        let at = |value: u64| usize::try_from(value).unwrap_or_default();
        let first = FIRST[at(combination) % FIRST.len()];
        let middle = MIDDLE[at(combination / FIRST.len() as u64) % MIDDLE.len()];
        let tail = TAIL[at(combination / (FIRST.len() * MIDDLE.len()) as u64)];
        let place = draw.pick(&PLACES);
        let form = draw.pick(&place.forms);
        let round = index / combinations;
        let mut name = format!("{first} {middle} {tail}");
        if round > 0 {
            name.push_str(&format!(" {}", round + 1));
        }
        if draw.percent(2) {
            name.push_str(&format!(
                ", formerly trading as {first} {middle} – a member of the \"{first} {}\" family of independent companies in {}",
                draw.pick(&TAIL),
                place.country
            ));
        }
        name = format!("{name} {form}");

        let (city, state, postal) = *draw.pick(&place.cities);
        let mut street = format!("{} {}", draw.below(400) + 1, draw.pick(&place.streets));
        if draw.percent(12) {
            street.push_str(&format!("\n{}. floor, door {}", draw.below(30) + 1, draw.below(90) + 1));
        }
        let domain = format!("{}-{index}.example", ascii(middle));
        let sure = (5_000..10_000).contains(&index);
        let has_tax = !draw.percent(3) || sure;
        // 700,001 and 900,000,000 share no factor: no two companies below 900 million share a number.
        let number = 100_000_000 + (index.wrapping_mul(700_001).wrapping_add(mix(self.seed) % 900_000_000)) % 900_000_000;
        let tax_id = has_tax.then(|| match place.code {
            "US" => format!("{}-{:07}", number / 10_000_000, number % 10_000_000),
            code => format!("{code}{number}"),
        });

        let annual_revenue = match draw.below(200) {
            0 => Some(format!("{}.{:02}", 9_007_199_254_740_993 + draw.below(900_000_000_000_000), draw.below(100))),
            1..=19 => None,
            _ => Some(format!("{}.{:02}", draw.below(900_000_000) + 10_000, draw.below(100))),
        };
        let credit_limit = match draw.below(100) {
            0 => Some(format!("{}.01", 99_999_999_999_999_u64 - draw.below(1_000))),
            1..=4 => None,
            5..=9 => Some("0.00".to_owned()),
            _ => Some(format!("{}.{:02}", (draw.below(500) + 1) * 500, *draw.pick(&[0_u64, 0, 10, 25, 99]))),
        };
        let offset = index % BLOCK;
        let parent = (offset > 0 && draw.percent(15)).then(|| index - offset + draw.below(offset));
        let status = match draw.below(10) {
            0..=1 => Status::Prospect,
            2 => Status::Former,
            _ => Status::Customer,
        };
        let description = match draw.below(100) {
            0..=54 => None,
            55..=56 => Some((*draw.pick(&TEXTS)).repeat(40 + at(draw.below(80)))),
            _ => Some((*draw.pick(&TEXTS)).to_owned()),
        };
        let contacts = (0..at(draw.below(5))).map(|position| contact(&mut draw, position, place.dial, &domain)).collect();
        Company {
            index,
            name,
            tax_id,
            email: draw.percent(94).then(|| format!("info@{domain}")),
            phone: draw.percent(95).then(|| phone(&mut draw, place.dial)),
            website: draw.percent(85).then(|| format!("https://www.{domain}/")),
            street,
            city: city.to_owned(),
            state: state.map(str::to_owned),
            postal_code: postal.to_owned(),
            country: place.country.to_owned(),
            country_code: place.code.to_owned(),
            industry: (*draw.pick(&INDUSTRIES)).to_owned(),
            segment: (*draw.pick(&SEGMENTS)).to_owned(),
            annual_revenue,
            credit_limit,
            employees: draw.percent(90).then(|| u32::try_from(draw.below(20_000)).unwrap_or_default() + 1),
            parent,
            status,
            description,
            contacts,
        }
    }

    /// Company `index` as this system holds it.
    #[must_use]
    pub fn view(&self, index: u64, system: System) -> Company {
        let mut company = self.company(index);
        let mut draw = self.draw(index, 100 + system as u64);
        company.phone = company.phone.map(|phone| write_phone(&phone, system));
        for contact in &mut company.contacts {
            contact.phone = contact.phone.take().map(|phone| write_phone(&phone, system));
        }
        match system {
            // The sales people's copy: their own notes, addresses of mail that nobody cleaned up.
            System::Salesforce => {
                if draw.percent(35) {
                    company.email = company.email.map(|email| email.replacen("info@", "office-old@", 1));
                }
                if draw.percent(30) {
                    company.description = Some(format!("Sales note: {}", draw.pick(&TEXTS)));
                }
                if draw.percent(10) {
                    company.website = None;
                }
            }
            // The accountants' copy: limits as granted, addresses as on the invoice, few notes.
            System::Netsuite => {
                if draw.percent(60) {
                    let raise = (draw.below(40) + 1) * 250;
                    company.credit_limit = company.credit_limit.map(|limit| raised(&limit, raise));
                }
                if draw.percent(20) {
                    company.street = company.street.replace('\n', ", ").to_uppercase();
                }
                if draw.percent(50) {
                    company.description = None;
                }
                if draw.percent(8) {
                    company.employees = None;
                }
            }
        }
        company
    }
}

fn contact(draw: &mut Draw, index: usize, dial: &str, domain: &str) -> Contact {
    let first = *draw.pick(&GIVEN);
    let last = *draw.pick(&FAMILY);
    Contact {
        index,
        first_name: draw.percent(93).then(|| first.to_owned()),
        last_name: last.to_owned(),
        email: draw.percent(88).then(|| format!("{}.{index}@{domain}", ascii(last))),
        phone: draw.percent(70).then(|| phone(draw, dial)),
        title: draw.percent(75).then(|| (*draw.pick(&TITLES)).to_owned()),
    }
}

fn phone(draw: &mut Draw, dial: &str) -> String {
    format!("+{dial}555{:04}", draw.below(10_000))
}

/// Each system's people write telephone numbers in their own way.
fn write_phone(e164: &str, system: System) -> String {
    let digits = e164.trim_start_matches('+');
    let (head, tail) = digits.split_at(digits.len().saturating_sub(7));
    let (exchange, line) = tail.split_at(tail.len().min(3));
    match (system, head.strip_prefix('1')) {
        (System::Salesforce, Some(area)) => format!("({area}) {exchange}-{line}"),
        (System::Salesforce, None) => format!("+{head} {exchange}{line}"),
        (System::Netsuite, _) => format!("+{head}-{exchange}-{line}"),
    }
}

/// A decimal text raised by whole units, exactly.
fn raised(amount: &str, units: u64) -> String {
    match amount.split_once('.') {
        Some((whole, cents)) => match whole.parse::<BigInt>() {
            Ok(whole) => format!("{}.{cents}", whole + units),
            Err(_) => amount.to_owned(),
        },
        None => amount.to_owned(),
    }
}

/// Lower-case ASCII letters of a text, for domains and mail; `x` where there are none.
fn ascii(text: &str) -> String {
    let letters: String = text.chars().filter(char::is_ascii_alphabetic).map(|letter| letter.to_ascii_lowercase()).collect();
    if letters.is_empty() { "x".to_owned() } else { letters }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_and_tax_ids_are_unique_and_parents_stay_in_their_block() {
        let world = Universe::new(7);
        let (mut names, mut taxes, mut children, mut without) = (HashSet::new(), HashSet::new(), 0, 0);
        for index in 0..20_000 {
            let company = world.company(index);
            assert!(company.name.chars().count() <= 200, "{}", company.name);
            assert!(names.insert(company.name.clone()), "{} twice", company.name);
            match company.tax_id {
                Some(tax) => assert!(taxes.insert(tax.clone()), "{tax} twice"),
                None => {
                    assert!(!(5_000..10_000).contains(&index));
                    without += 1;
                }
            }
            if let Some(parent) = company.parent {
                assert!(parent < index && parent / BLOCK == index / BLOCK);
                children += 1;
            }
        }
        assert!((2_500..3_500).contains(&children), "{children}");
        assert!((300..600).contains(&without), "{without}");
    }

    #[test]
    fn a_company_is_the_same_whenever_it_is_asked_for_and_differs_between_systems() {
        let world = Universe::new(1);
        let mut different = 0;
        for index in 5_000..6_000 {
            assert_eq!(world.company(index), Universe::new(1).company(index));
            let (crm, erp) = (world.view(index, System::Salesforce), world.view(index, System::Netsuite));
            assert_eq!((&crm.name, &crm.tax_id, crm.parent), (&erp.name, &erp.tax_id, erp.parent));
            different += usize::from(crm != erp);
        }
        assert!(different > 980, "{different}");
    }

    #[test]
    fn some_amounts_are_beyond_what_a_double_can_hold() {
        let world = Universe::new(1);
        let huge = (0..2_000).filter_map(|index| world.company(index).annual_revenue).filter(|text| text.len() >= 19).count();
        assert!(huge > 3, "{huge}");
    }
}
