package envoy

import (
	"regexp"
	"strings"
	"testing"
)

// shop is a document of a service that lies below /shop.
const shop = `openapi: 3.1.0
info: {title: Shop, version: "1"}
servers: [{url: "https://api.example.com/shop"}]
components:
  securitySchemes:
    login: {type: oauth2, flows: {clientCredentials: {tokenUrl: "https://id.example.com/token", scopes: {orders: "", items: ""}}}}
paths:
  /books/{id}:
    get: {operationId: getBook, security: [{login: [orders]}], responses: {"200": {description: a book}}}
    delete: {operationId: deleteBook, security: [{login: [orders, items]}], responses: {"204": {description: gone}}}
  /covers/{name}.png:
    get: {operationId: getCover, x-tollkeeper: {public: true}, responses: {"200": {description: a picture}}}
  /print:
    post: {operationId: printBook, x-tollkeeper: {charge: {credits: 5}}, responses: {"202": {description: it prints}}}
`

// TestRoutes_OpenAPI takes routes from a document, replaces it by a broken one, and repairs it.
func TestRoutes_OpenAPI(t *testing.T) {
	w := newRouteWorld(t)
	w.writePolicy("shop.yaml", shop)
	w.routes += "    - openapi: shop.yaml\n"
	w.configure("{}")
	for request, want := range map[string]string{
		"GET /shop/books/7":            "getBook",
		"HEAD /shop/books/7":           "getBook",
		"GET /Shop/BOOKS/7/":           "getBook",
		"GET /shop/books;x/7":          "malformed matrix_parameter",
		"GET /shop/%2562ooks/7":        "ambiguous double_encoded",
		"DELETE /shop/books/7":         "deleteBook",
		"PUT /shop/books/7":            "unmatched",
		"GET /books/7":                 "unmatched",
		"GET /shop/books/7/x":          "unmatched",
		"GET /shop/covers/a.png":       "getCover",
		"GET /shop/covers/a.gif":       "unmatched",
		"POST /shop/print":             "printBook",
		"POST /shop/print.":            "ambiguous loose_ending",
		"GET /v1/reports/7":            "read-reports",
		"GET /shop/covers/../books/7":  "getBook", // Envoy resolves it
		"GET /shop/covers/%2e%2e%2f/x": "Envoy: 307 to /shop/x",
	} {
		row, err := readRow("| | `" + request + "` | | | |")
		if err != nil {
			t.Fatal(err)
		}
		for _, http2 := range []bool{false, true} {
			got := w.send(row.request, w.shipped, http2, w.all.Text)
			if got.outcome != want || strings.HasPrefix(want, "print") && got.charge != `{"credits":5}` {
				t.Errorf("%s: %s, charged %s, want %s", request, got.outcome, got.charge, want)
			}
		}
	}
	ask := func(method, key string) string {
		return w.send(rawRequest{method: method, target: "/shop/books/7", host: "api.example.com"}, w.shipped, true, key).outcome
	}
	if weak, stranger := ask("DELETE", w.none.Text), ask("DELETE", ""); weak != "deleteBook: permission_denied" || stranger != "deleteBook: key_missing" {
		t.Errorf("without scopes %s, without a key %s", weak, stranger)
	}

	refused := regexp.MustCompile(`policy refused[^\n]*"file":"[^"]*shop\.yaml","line":10,`)
	w.writePolicy("shop.yaml", strings.Replace(shop, "{login: [orders, items]}", "{logon: [orders, items]}", 1))
	await(t, func() bool { return refused.MatchString(w.tk.Log()) })
	if got := ask("DELETE", w.none.Text); got != "deleteBook: permission_denied" {
		t.Errorf("after a broken document: %s", got)
	}
	w.writePolicy("shop.yaml", strings.Replace(shop, "[orders, items]}", "[]}", 1))
	await(t, func() bool { return ask("DELETE", w.none.Text) == "deleteBook" })
}
