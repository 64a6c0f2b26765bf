package main

// load is what the clients ask: who calls, for which paths, and how many checks should be denied or bear a token. It is data:
// an asker draws checks from it.
type load struct {
	people  *population
	callers int     // how many keys are in use, spread evenly over the population: the callers of an hour among all customers
	skew    float64 // the exponent of a Zipf distribution of the callers; 0: all call alike
	cold    bool    // the callers come as they are drawn; otherwise each has called before anything is measured

	targets      []target
	headersAsMap bool // Envoy's default, and what policies for OPA's Envoy plugin read; else a list, as with our configuration

	tokens  *tokenSet
	bearing float64 // the share of the checks that bear a token in place of a key
	denied  float64 // the share of the checks that should be denied
	faults  []fault // for which they are, in equal shares
	judged  judgement
}

// judgement says which answers an authorizer can give.
type judgement int

const (
	byReason  judgement = iota // denials with the right reason
	byVerdict                  // denials
	allAllow                   // none but allows
)

// loadOf uses a number of the keys of a population, for requests of a few paths.
func loadOf(people *population, callers int) load {
	return load{people: people, callers: min(callers, people.callers()), targets: fewPaths}
}

// to is the load for other requests.
func (l load) to(targets []target) load {
	l.targets = targets
	return l
}

// drawn is the load with callers who come as they are drawn, from a Zipf distribution with that exponent, or alike if it is 0.
func (l load) drawn(skew float64) load {
	l.skew, l.cold = skew, true
	return l
}

// mixed is the load with shares of checks that should be denied and of checks that bear a token.
func (l load) mixed(denied float64, faults []fault, bearing float64, tokens *tokenSet) load {
	l.denied, l.faults, l.bearing, l.tokens = denied, faults, bearing, tokens
	return l
}

// mapped is the load with headers as a map.
func (l load) mapped() load {
	l.headersAsMap = true
	return l
}

// judgedBy is the load for authorizers that can give other answers.
func (l load) judgedBy(j judgement) load {
	l.judged = j
	return l
}

// nth is the key of a caller.
func (l *load) nth(i int) []byte { return l.people.keys.text(i * (l.people.callers() / l.callers)) }
