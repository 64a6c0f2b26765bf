package rules

import (
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
)

// All are the rules, sorted by id. TK00x: whether Tollkeeper is asked at all. TK10x to TK11x: the filter. TK12x to TK13x:
// requests and routes. TK14x: the connection to Tollkeeper. TK15x: Istio. TK16x: Envoy Gateway. TK18x: Envoy itself. TK2xx:
// Tollkeeper's own configuration, and from TK250 its table of routes.
var All = []rule.Rule{
	unreadable, unprotected, protocol, newerField,
	failsOpen, checkTimeout, outageStatus, partial, shadowMode, unvalidated, unruled, forbiddenHeaders, forgedIdentity, joinedHeaders,
	withheldHeaders,
	unprotectedRoutes, routeChosenAgain, unnormalizedPaths, underscoreHeaders, checkedAnswers, heldBodies, clientAddress, endlessStreams,
	rewrittenDenials, checkedPreflights, lateTokens, chargedFirst, unsentTokens,
	notHTTP2, frequentPings, oneReplica, openConnection, retries, blamedUpstream, slowConnect, lowLimit, deadReplicas, unknownCluster,
	badProvider, rivalProviders, portWithoutGRPC, ambientPolicy, providerTimeout, policyWithoutRules, anyOptions, unverifiedToken,
	unhardened,
	overriddenPolicy, policyFailsOpen, refusedObject, unreachableBackend, ignoredKind,
	vulnerableEnvoy, openAdmin,
	ownUnusable, ownPolicies, ownCache, ownTests, ownDryRun, ownFiles, ownStrict, ownPlans, ownEvaluator, ownData, ownRunning, ownDisk, ownShared,
	ownDamage, ownMemory,
	certUnusable, certExpiry, certNames, certClients, certKeyShared,
	ownAdmin, ownClear, ownPepper, ownHTTP, envoyImpatient,
	unmatchedRequests, otherMethods, widePublic, lenientPaths, unknownRoute, apartRoutes, tableUnusable,
}

// since is the release with the first rules.
const since = "1.0.0"

const (
	maxCheck = time.Second // a longer check holds up requests

	inTheClear = "checks cross the network in the clear with their credentials, and any server that answers is trusted"
)

// each applies a check to every item.
func each[T any](all func(*model.Model) []T, check func(*model.Model, T, rule.Report)) []rule.Check {
	return []rule.Check{func(in *model.Model, report rule.Report) {
		for _, x := range all(in) {
			check(in, x, report)
		}
	}}
}

// by returns the checks that are configured in one of these ways.
func by(ways ...model.Way) func(*model.Model) []*model.ExtAuthz {
	return func(in *model.Model) []*model.ExtAuthz { return in.ChecksBy(ways...) }
}

// some lists the first few names.
func some(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + " and others"
}
