package main

import (
	"encoding/hex"
	"math/rand/v2"
)

// target is a request line. idMark in its path stands for an id of the shape, which is another one in each check.
type target struct {
	method, path string
	shape        shape
	guarded      bool // its route wants a scope, which nearly all keys and all tokens have
}

const idMark = "{id}"

var (
	// fewPaths are always the same requests. No route names them.
	fewPaths = []target{
		{method: "GET", path: "/v1/orders"},
		{method: "GET", path: "/v1/orders/84121/items?limit=50&after=1690"},
		{method: "POST", path: "/v1/orders"},
		{method: "GET", path: "/v1/search?q=shoes&page=2"},
		{method: "GET", path: "/v2/customers/cus_9f8Zq/invoices"},
	}
	onePath = fewPaths[:1]
	// idPaths never repeat. Half of them are of the route of routesYAML, and no route names the others.
	idPaths = append(withIDs(target{method: "GET", path: "/v1/orders/" + idMark, guarded: true}),
		withIDs(target{method: "GET", path: "/v1/customers/" + idMark + "/invoices"})...)
)

// idPathsNote says in a report what idPaths are.
const idPathsNote = "Another id in each path: half of the requests are GET /v1/orders/{id}, a route that wants a scope, and half are " +
	"GET /v1/customers/{id}/invoices, which no route names. Ids are decimal (7 to 19 digits), UUIDs, and base64url (11 to 43 letters)."

// routesYAML has a route with a template and a scope.
const (
	routesYAML = `tollkeeper:
  routes:
  - name: read-order
    match: {methods: [GET], path: "/v1/orders/{id}"}
    scopes: [` + ordersScope + `]
`
	ordersScope = "orders:read"
)

// withIDs is a request with ids of every shape.
func withIDs(t target) []target {
	all := make([]target, len(shapes))
	for i, s := range shapes {
		all[i] = t
		all[i].shape = s
	}
	return all
}

// shape is a form of ids.
type shape struct {
	length int
	fill   func(dst []byte, rnd *rand.Rand) // writes an id of this length into dst
}

// shapes are usual forms. All have more than a million ids, so that hardly any comes twice.
var shapes = []shape{
	{7, decimalID}, {9, decimalID}, {12, decimalID}, {19, decimalID}, {36, uuid}, {11, base64ID}, {22, base64ID}, {43, base64ID},
}

func decimalID(dst []byte, rnd *rand.Rand) {
	for i := range dst {
		dst[i] = '0' + byte(rnd.IntN(10))
	}
	dst[0] = '1' + byte(rnd.IntN(9))
}

func uuid(dst []byte, rnd *rand.Rand) {
	var random [16]byte
	for i := range random {
		random[i] = byte(rnd.Uint32())
	}
	random[6], random[8] = random[6]&0x0f|0x40, random[8]&0x3f|0x80
	at := 0
	for i, part := range [][]byte{random[:4], random[4:6], random[6:8], random[8:10], random[10:]} {
		if i > 0 {
			dst[at] = '-'
			at++
		}
		at += hex.Encode(dst[at:], part)
	}
}

// base64ID has capital letters, which tell whether a server folds the whole path.
func base64ID(dst []byte, rnd *rand.Rand) {
	const letters = base62 + "-_"
	for i := range dst {
		dst[i] = letters[rnd.IntN(len(letters))]
	}
}
