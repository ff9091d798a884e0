//! Values for parameters of a model, by name.

use super::Model;
use crate::error::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Values for some of a model's parameters. As text, in files and on the command line: `rho=28.5,beta=2.7`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParameterValues(Vec<(String, f64)>);

impl ParameterValues {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of that name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| *value)
    }

    /// For each parameter of the model its value, where there is one.
    pub fn by_parameter(&self, model: Model) -> Vec<Option<f64>> {
        model.parameter_names().iter().map(|name| self.get(name)).collect()
    }

    /// For each parameter of the model its value, or else the model's own.
    pub fn or_default(&self, model: Model) -> Vec<f64> {
        self.by_parameter(model)
            .iter()
            .zip(model.default_parameters())
            .map(|(own, other)| own.unwrap_or(*other))
            .collect()
    }

    /// The same with every parameter of the model named, in its order, and then what else there is.
    pub fn completed(mut self, model: Model) -> Self {
        let own = model.parameter_names().iter().copied().zip(self.or_default(model));
        let own: Vec<_> = own.map(|(name, value)| (name.to_owned(), value)).collect();
        self.0.retain(|(name, _)| !model.parameter_names().contains(&name.as_str()));
        Self(own.into_iter().chain(self.0).collect())
    }

    /// For each parameter of the model its value; `None` where there are none at all.
    ///
    /// # Panics
    /// Values for some parameters and not for the others, which [`Self::check_deviations`] refuses.
    pub fn all_or_none(&self, model: Model) -> Option<Vec<f64>> {
        let value = |name: &&str| self.get(name).unwrap_or_else(|| panic!("no value for {name}: to be checked before"));
        if self.is_empty() { None } else { Some(model.parameter_names().iter().map(value).collect()) }
    }

    /// Refuses names that are none of the model's, and values that are not finite. `what` is what holds the values.
    ///
    /// # Errors
    /// The first one at fault.
    pub fn check(&self, what: &str, model: Model) -> Result<()> {
        let names = model.parameter_names();
        for (name, value) in &self.0 {
            if !names.contains(&name.as_str()) {
                let expected = format!("parameters of {}: {}", model.name(), names.join(", "));
                return Err(Error::invalid(what, expected, name, "correct the name"));
            }
            if !value.is_finite() {
                let expected = format!("a finite number for {name}");
                return Err(Error::invalid(what, expected, value.to_string(), "correct the value"));
            }
        }
        Ok(())
    }

    /// Refuses what [`Self::check`] refuses, and besides deviations that are not positive, and those of some of the
    /// parameters and not of the others.
    ///
    /// # Errors
    /// The first fault.
    pub fn check_deviations(&self, what: &str, model: Model) -> Result<()> {
        self.check(what, model)?;
        if let Some((name, value)) = self.0.iter().find(|(_, value)| *value <= 0.0) {
            let expected = format!("a finite deviation > 0 for {name}");
            return Err(Error::invalid(what, expected, value.to_string(), "leave all out where parameters are known"));
        }
        let names = model.parameter_names();
        let missing: Vec<_> = names.iter().copied().filter(|name| self.get(name).is_none()).collect();
        if !self.is_empty() && !missing.is_empty() {
            let expected = format!("a deviation for each of {}, or none", names.join(", "));
            let help =
                "parameters are estimated together: give the others a deviation too, a small one where they are known";
            return Err(Error::invalid(what, expected, format!("none for {}", missing.join(", ")), help));
        }
        Ok(())
    }
}

impl<N: Into<String>> FromIterator<(N, f64)> for ParameterValues {
    fn from_iter<I: IntoIterator<Item = (N, f64)>>(values: I) -> Self {
        Self(values.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

impl<N: Into<String>, const K: usize> From<[(N, f64); K]> for ParameterValues {
    fn from(values: [(N, f64); K]) -> Self {
        values.into_iter().collect()
    }
}

impl FromStr for ParameterValues {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let mut values: Vec<(String, f64)> = Vec::new();
        for part in text.split(',').filter(|_| !text.trim().is_empty()) {
            let pair = part.split_once('=').and_then(|(name, value)| Some((name.trim(), value.trim().parse().ok()?)));
            let (name, value) = pair.ok_or_else(|| format!("expected NAME=VALUE,.., found {part:?}"))?;
            if values.iter().any(|(known, _)| known == name) {
                return Err(format!("{name} is given twice"));
            }
            values.push((name.to_owned(), value));
        }
        Ok(Self(values))
    }
}

impl fmt::Display for ParameterValues {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let parts: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&parts.join(","))
    }
}

impl Serialize for ParameterValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ParameterValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_back() {
        for text in ["", "forcing=8.25", "sigma=10,rho=28,beta=2.6666666666666665"] {
            let values: ParameterValues = text.parse().unwrap();
            assert_eq!(values.to_string(), text);
        }
        assert_eq!("rho = 28 , beta=1e-3".parse::<ParameterValues>(), Ok([("rho", 28.0), ("beta", 1e-3)].into()));
        for wrong in ["rho", "rho=", "=", "rho=28,", "rho=28,rho=29", "28"] {
            assert!(wrong.parse::<ParameterValues>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_given_is_the_models() {
        let model = Model::Lorenz63;
        let values: ParameterValues = [("rho", 30.0)].into();
        assert_eq!(values.or_default(model), [10.0, 30.0, 8.0 / 3.0]);
        assert_eq!(values.by_parameter(model), [None, Some(30.0), None]);
        assert_eq!(ParameterValues::default().all_or_none(model), None);
        assert_eq!(values.completed(model).to_string(), "sigma=10,rho=30,beta=2.6666666666666665");
    }

    #[test]
    fn what_no_model_can_use_is_refused_with_what_it_can() {
        let wrong = |text: &str, words: &[&str]| {
            let values: ParameterValues = text.parse().unwrap();
            let error = format!("{:?}", values.check_deviations("parameter-std", Model::Lorenz63).unwrap_err());
            assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
        };
        wrong("forcing=8", &["sigma, rho, beta", "forcing", "lorenz63"]);
        wrong("rho=inf", &["finite", "rho"]);
        wrong("rho=0", &["> 0", "rho"]);
        wrong("rho=1,beta=1", &["each of sigma, rho, beta", "none for sigma"]);
    }
}
