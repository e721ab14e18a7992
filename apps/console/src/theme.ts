import { createTheme, type MantineColorsTuple } from '@mantine/core';

const tide: MantineColorsTuple = ['#e6f6f8', '#cfe9ed', '#a1d2da', '#6fbac6', '#48a6b5', '#2f99ab', '#1f93a6', '#0b7285', '#046577', '#005868'];

/** Mantine's dark greys, tinted like the page around them. */
const dark: MantineColorsTuple = ['#e2eaee', '#c3d0d7', '#a3b4bd', '#84969f', '#33424a', '#27333a', '#1a242a', '#151d21', '#0e1417', '#0a0f12'];

export const theme = createTheme({
  primaryColor: 'tide',
  primaryShade: { light: 7, dark: 5 },
  colors: { tide, dark },
  defaultRadius: 'sm',
  fontFamily: 'Inter, "Segoe UI", system-ui, -apple-system, "Helvetica Neue", "Noto Sans", "DejaVu Sans", Arial, sans-serif',
  fontFamilyMonospace: 'ui-monospace, "SF Mono", "Cascadia Mono", "JetBrains Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace',
  fontSizes: { xs: '0.72rem', sm: '0.82rem', md: '0.9rem', lg: '1.05rem', xl: '1.25rem' },
});
