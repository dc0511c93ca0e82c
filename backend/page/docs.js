SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  // Its badge would ask a service of somebody else's about this API.
  validatorUrl: null,
});
