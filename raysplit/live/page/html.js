// Making elements.

export function html(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

// Colour of a domain, by its place; colours.css has the colours for light and dark.
export function domainClass(domains, name) {
  return `domain-${domains.indexOf(name) % 7}`;
}
